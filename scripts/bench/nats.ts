/**
 * Putting objects into a NATS bucket and getting them back, beside the `nats` package's own ObjectStore on the same
 * server; how long a small put takes to be durable, and a watcher to hear of it. Each client runs in a process of
 * its own, interleaved; medians of the rounds.
 *
 *     node dist/scripts/bench/nats.js [--mib 256] [--puts 1000] [--rounds 3]
 */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { connect, StorageType } from 'nats';
import { openReplica } from '../../lib/replica/open.js';
import type { LtxFileTarget } from '../../lib/replica/replica.js';
import { makeBucket } from '../../test/support/nats-replica.js';
import { startNatsServer } from '../../test/support/nats-server.js';
import { median, numberOption, peakResidentBytes, printTable } from './figures.js';

const mib = numberOption('mib', 256);
const puts = numberOption('puts', 1000);
const rounds = numberOption('rounds', 3);
const BLOCK = randomBytes(1024 * 1024);

/** What one client in one round measured. */
interface Figures {
  putMbPerSecond: number;
  getMbPerSecond: number;
  residentMb: number;
  smallPutP50Ms: number;
  smallPutP99Ms: number;
  /** From the start of a small put to the watcher's hearing of it. */
  heardP50Ms: number;
  heardP99Ms: number;
}

/** Puts and gets of one client; `get` is to check the bytes as that client does. */
interface Client {
  putLarge(): Promise<void>;
  getLarge(): Promise<number>;
  putSmall(i: number, content: Uint8Array): Promise<void>;
  /** Hears of every object from now on, until it was called back `puts` times. */
  watch(heard: (i: number) => void): Promise<void>;
  close(): Promise<void>;
}

async function jetlite(url: string): Promise<Client> {
  const replica = await openReplica(`${url}/bench/jetlite`, { env: {} });
  const target = (level: number, txid: bigint): LtxFileTarget => {
    return { level, minTxid: txid, maxTxid: txid, timestampMs: Date.now() };
  };
  const start = BigInt(Date.now()) * 1_000_000n;
  return {
    putLarge: async () => {
      await replica.write(target(9, 1n), blocks);
    },
    getLarge: async () => {
      const [file] = await replica.list(9);
      let size = 0;
      for await (const bytes of replica.read(file)) size += bytes.length;
      return size;
    },
    putSmall: async (i, content) => {
      await replica.write(target(0, start + BigInt(i)), () => [content]);
    },
    watch: async (heard) => {
      const follower = await openReplica(`${url}/bench/jetlite`, { env: {} });
      const files = follower.watch(new AbortController().signal);
      await follower.list();
      void (async () => {
        let count = 0;
        for await (const file of files) {
          if (file.level === 0) heard(Number(file.minTxid - start));
          if (++count === puts) break;
        }
        await follower.close();
      })();
    },
    close: () => replica.close(),
  };
}

async function objectStore(url: string): Promise<Client> {
  const connection = await connect({ servers: url });
  // It publishes all at once; by default the server's answers come too late for it.
  const store = await connection
    .jetstream({ timeout: 60_000 })
    .views.os('bench', { storage: StorageType.File });
  return {
    putLarge: async () => {
      const source = blocks();
      await store.put(
        { name: 'large' },
        new ReadableStream({
          pull: (controller) => {
            const { value, done } = source.next();
            if (done) controller.close();
            else controller.enqueue(value);
          },
        }),
      );
    },
    getLarge: async () => {
      const found = await store.get('large');
      let size = 0;
      for await (const bytes of found!.data) size += bytes.length;
      const error = await found!.error;
      if (error) throw error;
      return size;
    },
    putSmall: async (i, content) => {
      await store.putBlob({ name: `small${i}` }, content);
    },
    watch: async (heard) => {
      const changes = await store.watch({ includeHistory: false });
      void (async () => {
        for await (const info of changes)
          if (info?.name.startsWith('small')) heard(Number(info.name.slice(5)));
      })();
    },
    close: () => connection.close(),
  };
}

function* blocks(): Generator<Uint8Array> {
  for (let i = 0; i < mib; i++) yield BLOCK;
}

async function measure(client: Client): Promise<Figures> {
  const megabytes = (mib * BLOCK.length) / 1e6;
  let started = performance.now();
  await client.putLarge();
  const putMbPerSecond = megabytes / ((performance.now() - started) / 1000);
  started = performance.now();
  if ((await client.getLarge()) !== mib * BLOCK.length) throw new Error('not everything came back');
  const getMbPerSecond = megabytes / ((performance.now() - started) / 1000);
  const residentMb = peakResidentBytes(process.pid) / 1e6;

  const begun = new Array<number>(puts);
  const heard: number[] = [];
  await client.watch((i) => heard.push(performance.now() - begun[i]));
  const durable: number[] = [];
  for (let i = 0; i < puts; i++) {
    const content = randomBytes(4096);
    begun[i] = performance.now();
    await client.putSmall(i, content);
    durable.push(performance.now() - begun[i]);
    // The application's next commit is not at once.
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  while (heard.length < puts) await new Promise((resolve) => setTimeout(resolve, 1));
  await client.close();
  return {
    putMbPerSecond,
    getMbPerSecond,
    residentMb,
    smallPutP50Ms: share(durable, 0.5),
    smallPutP99Ms: share(durable, 0.99),
    heardP50Ms: share(heard, 0.5),
    heardP99Ms: share(heard, 0.99),
  };
}

function share(values: number[], part: number): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length * part)];
}

const CLIENTS = { jetlite, ObjectStore: objectStore };

async function compare(): Promise<void> {
  const endings: (() => Promise<void>)[] = [];
  const server = await startNatsServer({
    after: (action) => endings.push(action),
    skip: (why) => process.stdout.write(`${why}\n`),
  });
  if (server === undefined) return;
  try {
    await makeBucket(server, 'bench');
    const found = new Map<string, Figures[]>(Object.keys(CLIENTS).map((name) => [name, []]));
    for (let round = 0; round < rounds; round++) {
      for (const name of Object.keys(CLIENTS)) {
        const args = ['--client', name, '--url', server.url, '--mib', `${mib}`, '--puts', `${puts}`];
        const program = fileURLToPath(import.meta.url);
        const { stdout } = await promisify(execFile)(process.execPath, [program, ...args]);
        found.get(name)?.push(JSON.parse(stdout));
      }
    }
    const rows = [...found].map(([name, figures]) => {
      const middle = (key: keyof Figures, digits: number) =>
        median(figures.map((one) => one[key])).toFixed(digits);
      return [
        name,
        middle('putMbPerSecond', 0),
        middle('getMbPerSecond', 0),
        middle('residentMb', 0),
        `${middle('smallPutP50Ms', 2)} / ${middle('smallPutP99Ms', 2)}`,
        `${middle('heardP50Ms', 2)} / ${middle('heardP99Ms', 2)}`,
      ];
    });
    const head = [
      `${mib} MiB`,
      'put MB/s',
      'get MB/s',
      'peak MB',
      '4 KiB put p50/p99 ms',
      'heard p50/p99 ms',
    ];
    printTable(head, rows);
  } finally {
    for (const end of endings.reverse()) await end();
  }
}

function textOption(name: string): string | undefined {
  const at = process.argv.indexOf(`--${name}`);
  return at === -1 ? undefined : process.argv[at + 1];
}

const client = textOption('client') as keyof typeof CLIENTS | undefined;
if (client === undefined) await compare();
else process.stdout.write(JSON.stringify(await measure(await CLIENTS[client](textOption('url') ?? ''))));
