/** Real nats-servers for tests: on free loopback ports, stores in temporary folders, gone when the test is over. */

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createConnection, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { connect } from 'nats';
import { type PeerName, peer } from './peers.js';

export interface NatsServerOptions {
  /** More of the configuration file, at its top level. */
  readonly config?: string;
  /** Lines inside the `jetstream` block; `false` for a server without JetStream. */
  readonly jetstream?: string | false;
  /** Another binary than the peer's. */
  readonly program?: string;
}

export interface NatsServer {
  /** `nats://127.0.0.1:PORT` */
  readonly url: string;
  readonly port: number;
  readonly storeDir: string;
  /** What the server wrote to its log so far. */
  readonly log: string;
  /** Asks the server to end and waits for it. */
  stop(): Promise<void>;
  /** `kill -9`, and waits for its end. */
  kill(): Promise<void>;
  /** Starts the stopped server again: same port, same store. */
  restart(): Promise<void>;
  /** SIGSTOP: connections stay open and answer nothing. */
  pause(): void;
  resume(): void;
}

type ServerPeer = Extract<PeerName, `nats-server${string}`>;

let serverPeer: ServerPeer = 'nats-server';

/** All servers of this process that do not name their program are started from that one. */
export function serveWith(name: ServerPeer): void {
  serverPeer = name;
}

interface Test {
  after(action: () => Promise<void>): void;
  skip(message?: string): void;
}

/** A server of its own for a test; undefined (and the test skipped) where none is installed, or none that knows its settings. */
export async function startNatsServer(
  t: Test,
  options: NatsServerOptions = {},
): Promise<NatsServer | undefined> {
  const program = options.program ?? peer(t, serverPeer);
  if (program === undefined) return undefined;
  const folder = await mkdtemp(join(tmpdir(), 'jetlite-nats-'));
  const server = new RunningServer(program, folder, await freePort(), (port, storeDir) =>
    configuration(port, storeDir, options, ''),
  );
  t.after(() => server.destroy());
  try {
    await server.restart();
  } catch (error) {
    const setting = /unknown field "(\w+)"/.exec(server.log)?.[1];
    if (setting === undefined) throw error;
    t.skip(`this nats-server is too old to know ${setting}`);
    return undefined;
  }
  return server;
}

/** Servers that form one JetStream cluster; ready when every one of them sees the leader. */
export async function startNatsCluster(
  t: Test,
  size = 3,
  options: NatsServerOptions = {},
): Promise<NatsServer[] | undefined> {
  const program = options.program ?? peer(t, serverPeer);
  if (program === undefined) return undefined;
  const routes = await Promise.all(Array.from({ length: size }, freePort));
  const servers: RunningServer[] = [];
  for (const [i, route] of routes.entries()) {
    const folder = await mkdtemp(join(tmpdir(), 'jetlite-nats-'));
    const cluster = `
server_name: server${i}
cluster {
  name: test
  listen: "127.0.0.1:${route}"
  routes: [${routes.map((port) => `"nats://127.0.0.1:${port}"`).join(', ')}]
}`;
    const server = new RunningServer(program, folder, await freePort(), (port, storeDir) =>
      configuration(port, storeDir, options, cluster),
    );
    t.after(() => server.destroy());
    servers.push(server);
  }
  await Promise.all(servers.map((server) => server.restart()));
  await Promise.all(servers.map((server) => jetStreamReady(server.url)));
  return servers;
}

function configuration(port: number, storeDir: string, options: NatsServerOptions, cluster: string): string {
  const jetstream =
    options.jetstream === false
      ? ''
      : `jetstream {\n  store_dir: "${storeDir}"\n  ${options.jetstream ?? ''}\n}`;
  return `listen: "127.0.0.1:${port}"\n${jetstream}\n${cluster}\n${options.config ?? ''}\n`;
}

class RunningServer implements NatsServer {
  readonly port: number;
  readonly url: string;
  readonly storeDir: string;
  log = '';
  readonly #program: string;
  readonly #folder: string;
  readonly #configure: (port: number, storeDir: string) => string;
  #child: ChildProcess | undefined;
  #ended: Promise<void> = Promise.resolve();

  constructor(
    program: string,
    folder: string,
    port: number,
    configure: (port: number, storeDir: string) => string,
  ) {
    this.#program = program;
    this.#folder = folder;
    this.port = port;
    this.url = `nats://127.0.0.1:${port}`;
    this.storeDir = join(folder, 'store');
    this.#configure = configure;
  }

  async restart(): Promise<void> {
    await this.stop();
    const file = join(this.#folder, 'server.conf');
    await writeFile(file, this.#configure(this.port, this.storeDir));
    const child = spawn(this.#program, ['-c', file], { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child = child;
    this.#ended = new Promise((resolve) => child.once('exit', () => resolve()));
    child.stdout?.on('data', (text) => {
      this.log += text;
    });
    child.stderr?.on('data', (text) => {
      this.log += text;
    });
    for (let tries = 0; tries < 400; tries++) {
      if (child.exitCode !== null) break;
      if (await greets(this.port)) return;
      await delay(25);
    }
    throw new Error(`nats-server did not come up:\n${this.log}`);
  }

  async stop(): Promise<void> {
    this.#child?.kill('SIGTERM');
    await this.#ended;
  }

  async kill(): Promise<void> {
    this.#child?.kill('SIGKILL');
    await this.#ended;
  }

  pause(): void {
    this.#child?.kill('SIGSTOP');
  }

  resume(): void {
    this.#child?.kill('SIGCONT');
  }

  async destroy(): Promise<void> {
    await this.kill();
    await rm(this.#folder, { recursive: true, force: true });
  }
}

/** A port nobody listens at just now. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** True if a NATS server at the port says INFO. */
function greets(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection(port, '127.0.0.1');
    socket.once('data', (bytes) => {
      socket.destroy();
      resolve(bytes.toString().startsWith('INFO '));
    });
    socket.once('error', () => resolve(false));
    socket.once('close', () => resolve(false));
  });
}

async function jetStreamReady(url: string): Promise<void> {
  const connection = await connect({ servers: url });
  try {
    for (let tries = 0; ; tries++) {
      try {
        await (await connection.jetstreamManager()).getAccountInfo();
        return;
      } catch (error) {
        if (tries === 200) throw error;
        await delay(50);
      }
    }
  } finally {
    await connection.close();
  }
}
