/**
 * The README's examples against real programs. A block is marked behind its language: `sh test=NAME` is run by a shell,
 * with `until-stopped` it is ended by SIGTERM once it works; `yaml test=NAME` is a configuration that must replicate;
 * `js test=NAME` is a program.
 * Only places are changed: the port of the server and the folders.
 */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { nkeys } from 'nats';
import { createBucket } from '../../lib/replica/nats/bucket.js';
import { connectNats, type NatsOptions } from '../../lib/replica/nats/connect.js';
import { cleanEnvironment, PROGRAM } from '../cli/run.js';
import { makeAuthority } from '../support/certificates.js';
import { TestOperator } from '../support/nats-accounts.js';
import { freePort, type NatsServer, startNatsServer } from '../support/nats-server.js';
import { peer } from '../support/peers.js';
import { scratchFolder } from '../support/scratch.js';
import { sqliteShell } from '../support/sqlite.js';

interface Example {
  readonly language: string;
  readonly name: string;
  readonly untilStopped: boolean;
  readonly text: string;
}

// Seen from dist/test/live.
const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
const README = await readFile(join(ROOT, 'README.md'), 'utf8');
const EXAMPLES: Example[] = [...README.matchAll(/^```(\w+) test=(\S+)( until-stopped)?\n(.*?)^```$/gms)].map(
  ([, language, name, untilStopped, text]) => ({
    language: language!,
    name: name!,
    untilStopped: untilStopped !== undefined,
    text: text!,
  }),
);

function examples(name: string, language: string): Example[] {
  const found = EXAMPLES.filter((example) => example.name === name && example.language === language);
  assert.ok(found.length > 0, `the README has no ${language} example ${name}`);
  return found;
}

/** A folder with a database `app.db`, a PATH on which `jetlite` is, and the places that examples name. */
class Desk {
  readonly folder: string;
  readonly #env: Record<string, string>;
  readonly #places: [example: string, here: string][];
  #exports = '';

  private constructor(folder: string, env: Record<string, string>) {
    this.folder = folder;
    this.#env = env;
    this.#places = [
      ['/var/lib/app', folder],
      ['/var/backups', join(folder, 'backups')],
    ];
  }

  static async make(t: TestContext, sqlite3: string): Promise<Desk> {
    const folder = await scratchFolder(t);
    const bin = join(folder, 'bin');
    await mkdir(bin);
    await writeFile(join(bin, 'jetlite'), `#!/bin/sh\nexec "${process.execPath}" "${PROGRAM}" "$@"\n`);
    await chmod(join(bin, 'jetlite'), 0o755);
    await symlink(sqlite3, join(bin, 'sqlite3'));
    return new Desk(folder, {
      ...(cleanEnvironment() as Record<string, string>),
      PATH: `${bin}:${process.env.PATH}`,
    });
  }

  place(example: string, here: string): void {
    this.#places.push([example, here]);
  }

  setEnv(name: string, value: string): void {
    this.#env[name] = value;
  }

  async writeFile(name: string, text: string): Promise<string> {
    const path = join(this.folder, name);
    await writeFile(path, text, { mode: 0o600 });
    return path;
  }

  /** Writes a file whose text names places of the examples. */
  async writeExample(name: string, text: string): Promise<void> {
    await this.writeFile(name, this.#placed(text));
  }

  /**
   * Runs an example, or a script of ours, to its end, which must be good, and resolves with what it said. What it
   * exports holds for those after it.
   */
  async run(script: string): Promise<string> {
    const { child, said } = this.#start(`set -eu\n${this.#exports}${this.#placed(script)}`);
    const [code] = await once(child, 'close');
    assert.equal(code, 0, `${script}\n${said.text}`);
    for (const line of this.#placed(script).match(/^export .*\n/gm) ?? []) this.#exports += line;
    return said.text;
  }

  /** Starts an example, waits until it says `ready`, does `meanwhile`, and stops it as a service would be stopped. */
  async runUntilStopped(script: string, ready: string, meanwhile: () => Promise<unknown>): Promise<void> {
    const { child, said } = this.#start(`set -eu\n${this.#exports}exec ${this.#placed(script)}`);
    const ended = once(child, 'close');
    try {
      for (let tries = 0; !said.text.includes(ready); tries++) {
        assert.ok(tries < 1200 && child.exitCode === null, `${script}\nnever said ${ready}:\n${said.text}`);
        await delay(25);
      }
      await meanwhile();
      child.kill('SIGTERM');
      assert.deepEqual((await ended)[0], 0, `${script}\n${said.text}`);
    } finally {
      child.kill('SIGKILL');
      await ended;
    }
  }

  #placed(text: string): string {
    return this.#places.reduce((placed, [example, here]) => placed.replaceAll(example, here), text);
  }

  #start(script: string) {
    const child = spawn('/bin/sh', ['-c', script], {
      cwd: this.folder,
      env: this.#env,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const said = { text: '' };
    const keep = (text: Buffer): void => {
      said.text += text;
    };
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    return { child, said };
  }
}

const MAKE_APP = `PRAGMA journal_mode = wal; CREATE TABLE note (text); INSERT INTO note VALUES ('one');`;

async function deskWithServer(t: TestContext, config = '', options: NatsOptions = {}) {
  const sqlite = sqliteShell(t);
  const sqlite3 = peer(t, 'sqlite3');
  if (!sqlite || !sqlite3) return undefined;
  const server = await startNatsServer(t, { config });
  if (!server) return undefined;
  await makeBackupsBucket(server, options);
  const desk = await Desk.make(t, sqlite3);
  desk.place('localhost:4222', `localhost:${server.port}`);
  const app = join(desk.folder, 'app.db');
  await sqlite.run(app, MAKE_APP);
  return { desk, sqlite, app };
}

async function makeBackupsBucket(server: NatsServer, options: NatsOptions): Promise<void> {
  const link = await connectNats({ hosts: [`localhost:${server.port}`], tls: false }, options, {});
  try {
    await createBucket(link, 'backups');
  } finally {
    await link.close();
  }
}

test('the first steps with a folder work as the README shows them', async (t) => {
  const sqlite = sqliteShell(t);
  const sqlite3 = peer(t, 'sqlite3');
  if (!sqlite || !sqlite3) return;
  const desk = await Desk.make(t, sqlite3);
  const source = join(desk.folder, 'my.db');
  for (const { text, untilStopped } of examples('folder', 'sh')) {
    if (!untilStopped) await desk.run(text);
    else {
      const write = () => sqlite.run(source, "INSERT INTO note VALUES ('meanwhile');");
      await desk.runUntilStopped(text, 'replicating my.db', write);
      await desk.run('jetlite verify backups/my.db --against my.db');
    }
  }
  assert.equal(await sqlite.run(join(desk.folder, 'copy.db'), 'SELECT text FROM note;'), 'hello\nworld\n');
});

test('a live read copy follows and is read as the README shows it', async (t) => {
  const sqlite = sqliteShell(t);
  const sqlite3 = peer(t, 'sqlite3');
  if (!sqlite || !sqlite3) return;
  const desk = await Desk.make(t, sqlite3);
  const source = join(desk.folder, 'my.db');
  await sqlite.run(source, MAKE_APP);
  await desk.run('jetlite backup my.db /var/backups/my.db');
  const [follow] = examples('follow', 'sh');
  const [read] = examples('follow-read', 'sh');
  await desk.runUntilStopped(follow!.text, ' follows ', async () => {
    assert.equal(await desk.run(read!.text), '1\n');
    await sqlite.run(source, "INSERT INTO note VALUES ('two');");
    await desk.run('jetlite backup my.db /var/backups/my.db');
    for (let tries = 0; (await desk.run(read!.text)) !== '2\n'; tries++) assert.ok(tries < 100);
  });
});

test('the README starts a NATS server and makes a bucket on it', async (t) => {
  const natsServer = peer(t, 'nats-server');
  const sqlite3 = peer(t, 'sqlite3');
  if (!natsServer || !sqlite3) return;
  const desk = await Desk.make(t, sqlite3);
  const port = await freePort();
  desk.place('localhost:4222', `localhost:${port}`);
  desk.place('/var/lib/nats', join(desk.folder, 'nats'));
  desk.place('nats-server', `${natsServer} --port ${port}`);
  for (const { text } of examples('server', 'sh')) {
    await desk.runUntilStopped(text, 'Server is ready', async () => {
      for (const bucket of examples('bucket', 'sh')) await desk.run(bucket.text);
    });
  }
});

test('replicating to NATS, restoring and going back in time work as the README shows them', async (t) => {
  const made = await deskWithServer(t);
  if (!made) return;
  const { desk, sqlite, app } = made;
  for (const { text, untilStopped } of examples('nats', 'sh')) {
    if (!untilStopped) await desk.run(text);
    else {
      const write = () => sqlite.run(app, "INSERT INTO note VALUES ('two');");
      await desk.runUntilStopped(text, 'replicating app.db', write);
      await delay(1000); // The examples ask for this moment in whole seconds.
    }
  }
  for (const copy of ['restored.db', 'again.db', 'then.db']) {
    assert.deepEqual(await sqlite.differences(app, join(desk.folder, copy)), [], copy);
  }
  const first = await sqlite.run(join(desk.folder, 'first.db'), 'SELECT text FROM note;');
  assert.equal(first, 'one\n');
});

test('the commands that use a configuration file work as the README shows them', async (t) => {
  const made = await deskWithServer(t);
  if (!made) return;
  const { desk, sqlite, app } = made;
  await desk.writeExample('jetlite.yml', examples('open', 'yaml')[0]!.text);
  for (const { text, untilStopped } of examples('config', 'sh')) {
    if (!untilStopped) await desk.run(text);
    else {
      const write = () => sqlite.run(app, "INSERT INTO note VALUES ('two');");
      await desk.runUntilStopped(text, 'replicating', write);
    }
  }
  assert.deepEqual(await sqlite.differences(app, join(desk.folder, 'restored.db')), []);
});

test('the library is used as the README shows it', async (t) => {
  const sqlite = sqliteShell(t);
  const sqlite3 = peer(t, 'sqlite3');
  if (!sqlite || !sqlite3) return;
  const desk = await Desk.make(t, sqlite3);
  const app = join(desk.folder, 'app.db');
  await sqlite.run(app, MAKE_APP);
  await mkdir(join(desk.folder, 'node_modules'));
  await symlink(ROOT, join(desk.folder, 'node_modules', 'jetlite'));
  for (const { text } of examples('library', 'js')) {
    await desk.writeExample('example.mjs', `${text}if (!sound) throw new Error('not sound');`);
    await desk.run(`"${process.execPath}" example.mjs`);
  }
  assert.deepEqual(await sqlite.differences(app, join(desk.folder, 'copy.db')), []);
});

/** Every configuration of that name replicates with the server it is meant for. */
async function configurationsWork(
  t: TestContext,
  name: string,
  serverConfig: string,
  options: NatsOptions,
  prepare: (desk: Desk) => Promise<void> | void = () => {},
): Promise<void> {
  const made = await deskWithServer(t, serverConfig, options);
  if (!made) return;
  const { desk, sqlite } = made;
  await prepare(desk);
  await sqlite.run(join(desk.folder, 'other.db'), 'CREATE TABLE other (x);');
  for (const example of examples(name, 'yaml')) {
    await desk.writeExample('jetlite.yml', example.text);
    assert.match(await desk.run('jetlite replicate --once --config jetlite.yml'), /up to date at TXID/);
  }
}

test("the README's configurations without authentication replicate", (t) =>
  configurationsWork(t, 'open', '', {}));

test("the README's configuration with a password replicates", (t) =>
  configurationsWork(t, 'password', 'authorization { user: myuser, password: mypassword }', {
    username: 'myuser',
    password: 'mypassword',
  }));

test("the README's configuration with a token replicates", (t) =>
  configurationsWork(t, 'token', 'authorization { token: "my-secret-token" }', { token: 'my-secret-token' }));

test("the README's configuration with an nkey replicates", (t) => {
  const user = nkeys.createUser();
  const seed = new TextDecoder().decode(user.getSeed());
  const config = `authorization { users: [{ nkey: ${user.getPublicKey()} }] }`;
  return configurationsWork(t, 'nkey', config, { nkey: seed }, async (desk) => {
    desk.place('/etc/jetlite/user.nk', await desk.writeFile('user.nk', seed));
  });
});

for (const name of ['jwt', 'creds']) {
  test(`the README's configuration with ${name} replicates`, (t) => {
    const operator = new TestOperator();
    const { jwt, seed, creds } = operator.user();
    return configurationsWork(t, name, operator.config, { jwt, seed }, async (desk) => {
      desk.setEnv('NATS_JWT', jwt);
      desk.setEnv('NATS_SEED', seed);
      desk.place('/etc/jetlite/nats.creds', await desk.writeFile('nats.creds', creds));
    });
  });
}

test("the README's configurations with TLS replicate, with certificates on one side and on both", async (t) => {
  const authority = await makeAuthority(t);
  if (!authority) return;
  const [server, client] = [await authority.issue('DNS:localhost'), await authority.issue('DNS:client')];
  await chmod(client.key, 0o600);
  for (const name of ['tls', 'mutual-tls']) {
    const mutual = name === 'mutual-tls';
    const verify = mutual ? `ca_file: "${authority.cert}", verify: true` : '';
    const config = `tls { cert_file: "${server.cert}", key_file: "${server.key}", ${verify} }`;
    const certificates = mutual ? { clientCert: client.cert, clientKey: client.key } : {};
    await configurationsWork(t, name, config, { rootCAs: [authority.cert], ...certificates }, (desk) => {
      desk.place('/etc/ssl/certs/nats-ca.pem', authority.cert);
      desk.place('/etc/ssl/certs/jetlite.pem', client.cert);
      desk.place('/etc/ssl/private/jetlite.key', client.key);
    });
  }
});

test('a private authority is named by the environment as the README shows it', async (t) => {
  const authority = await makeAuthority(t);
  if (!authority) return;
  const { cert, key } = await authority.issue('DNS:localhost');
  const config = `tls { cert_file: "${cert}", key_file: "${key}" }`;
  const made = await deskWithServer(t, config, { rootCAs: [authority.cert] });
  if (!made) return;
  made.desk.place('/etc/ssl/certs/nats-ca.pem', authority.cert);
  for (const { text } of examples('tls-environment', 'sh')) {
    assert.match(await made.desk.run(text), /written to tls:\/\/localhost:\d+\/backups as TXID/);
  }
});

test('every example that the README marks is run', () => {
  const run = [
    'folder',
    'follow',
    'follow-read',
    'library',
    'server',
    'bucket',
    'nats',
    'config',
    'open',
    'password',
    'token',
    'nkey',
    'jwt',
    'creds',
    'tls-environment',
    'permissions', // in test/replica/nats-permissions.test.ts
  ];
  const names = new Set(EXAMPLES.map(({ name }) => name));
  assert.deepEqual([...names].sort(), [...run, 'tls', 'mutual-tls'].sort());
});
