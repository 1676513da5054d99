/** A restore, or a follower, that is told to stop while the replica is silent: it ends, and leaves nothing behind. */

import assert from 'node:assert/strict';
import { mkdir, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { backup } from '../../../lib/jobs/backup.js';
import { restore } from '../../../lib/jobs/restore.js';
import { openReplica } from '../../../lib/replica/open.js';
import type { Replica } from '../../../lib/replica/replica.js';
import { assertRefused, jetlite, startJetlite } from '../../cli/run.js';
import { makeBucket } from '../../support/nats-replica.js';
import { startNatsServer } from '../../support/nats-server.js';
import { scratchFolder } from '../../support/scratch.js';
import { sqliteShell } from '../../support/sqlite.js';

/** More than is ever under way between a server and a reader. */
const DATABASE_MB = 100;
/** Nothing that was under way can still be coming after this time without any. */
const SETTLED_MS = 1000;

async function bytesIn(folder: string): Promise<number> {
  let bytes = 0;
  for (const name of await readdir(folder)) bytes += (await stat(join(folder, name))).size;
  return bytes;
}

/** Resolves when something has been written into the folder and for some time nothing more. */
async function stalled(folder: string, onFirst: () => void): Promise<void> {
  for (let before = 0; ; ) {
    const now = await bytesIn(folder);
    if (now > 0 && before === 0) onFirst();
    if (now > 0 && now === before) return;
    before = now;
    await delay(now > 0 ? SETTLED_MS : 2);
  }
}

for (const options of [[], ['--follow']]) {
  const what = options.length === 0 ? 'a restore' : 'the first restore of a follower';
  test(`${what} ends when it is told to stop in the middle of a file that a silent server does not go on with`, async (t) => {
    const sqlite = sqliteShell(t);
    const server = sqlite && (await startNatsServer(t));
    if (!server) return;
    await makeBucket(server);
    const folder = await scratchFolder(t);
    const app = join(folder, 'app.db');
    const rows = `SELECT randomblob(1000000) FROM generate_series(1, ${DATABASE_MB})`;
    await sqlite.run(app, `CREATE TABLE note AS ${rows};`);
    const replica = `${server.url}/backups`;
    assert.equal((await jetlite(['backup', app, replica])).exitCode, 0);
    const outputs = join(folder, 'outputs');
    await mkdir(outputs);
    const restoring = startJetlite(['restore', ...options, '-o', join(outputs, 'copy.db'), replica]);
    await stalled(outputs, () => server.pause());
    assert.equal(restoring.child.exitCode, null);
    restoring.child.kill('SIGTERM');
    assertRefused(await restoring.ended, 1, /interrupted/);
    assert.deepEqual(
      (await readdir(outputs)).filter((name) => !name.endsWith('-jetlite')),
      [],
    );
  });
}

/** A replica in a folder with a database in it, which comes to answer nothing where it is told to. */
async function silentReplica(t: TestContext, silent: 'read' | 'list') {
  const sqlite = sqliteShell(t);
  if (sqlite === undefined) return undefined;
  const folder = await scratchFolder(t);
  const app = join(folder, 'app.db');
  await sqlite.run(app, 'CREATE TABLE note (text);');
  const real = await openReplica(join(folder, 'replica'));
  t.after(() => real.close());
  await backup({ database: app, replica: real });
  let tellAsked = (): void => {};
  const asked = new Promise<void>((resolve) => {
    tellAsked = resolve;
  });
  const never = new Promise<never>(() => {});
  const hang = (): Promise<never> => {
    tellAsked();
    return never;
  };
  const replica: Replica = Object.create(real, {
    list: { value: silent === 'list' ? hang : () => real.list() },
    read: {
      // biome-ignore lint/correctness/useYield: it never comes to that
      value: async function* () {
        await hang();
      },
    },
  });
  return { replica, asked, outputs: join(folder, 'outputs') };
}

for (const silent of ['list', 'read'] as const) {
  test(`a restore whose replica never answers a ${silent} ends when it is told to stop`, async (t) => {
    const scene = await silentReplica(t, silent);
    if (scene === undefined) return;
    const { replica, asked, outputs } = scene;
    await mkdir(outputs);
    const stop = new AbortController();
    const restoring = restore({ replica, output: join(outputs, 'copy.db'), signal: stop.signal });
    void asked.then(() => stop.abort());
    await assert.rejects(restoring, { code: 'ABORTED' });
    assert.deepEqual(await readdir(outputs), []);
  });
}
