/** Two replicators at one replica, through the program itself: one goes on, the other stops and has changed nothing. */

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { openReplica } from '../../../lib/replica/open.js';
import type { LtxFileInfo } from '../../../lib/replica/replica.js';
import { jetlite, startJetlite } from '../../cli/run.js';
import { makeBucket } from '../../support/nats-replica.js';
import { startNatsCluster, startNatsServer } from '../../support/nats-server.js';
import { firstDifference } from '../../support/oracle/check.js';
import { scratchFolder } from '../../support/scratch.js';
import { sqliteShell } from '../../support/sqlite.js';

/** Servers, and the host part of a URL that names them all. */
type Home = (t: TestContext) => Promise<string | undefined>;

const HOMES: Record<string, Home> = {
  'one server': async (t) => {
    const server = await startNatsServer(t);
    if (server === undefined) return undefined;
    await makeBucket(server);
    return server.url;
  },
  'three replicas': async (t) => {
    const servers = await startNatsCluster(t);
    if (servers === undefined) return undefined;
    await makeBucket(servers[0], 'backups', { replicas: 3 });
    return `nats://${servers.map(({ port }) => `127.0.0.1:${port}`).join(',')}`;
  },
};

/** Watches a replica until its level 0 goes beyond `txid`; the newest file there. */
async function untilAbove(url: string, txid: bigint): Promise<LtxFileInfo[]> {
  const replica = await openReplica(url, { env: {} });
  const stop = new AbortController();
  try {
    const changes = replica.watch(stop.signal)[Symbol.asyncIterator]();
    for (;;) {
      const files = await replica.list(0);
      if ((files.at(-1)?.maxTxid ?? 0n) > txid) return files;
      await changes.next();
    }
  } finally {
    stop.abort();
    await replica.close();
  }
}

for (const [home, open] of Object.entries(HOMES)) {
  test(`on ${home} a replicator that slept while another took over stops for that database alone`, async (t) => {
    const shell = sqliteShell(t);
    const base = shell && (await open(t));
    if (shell === undefined || base === undefined) return;
    const folder = await scratchFolder(t);
    const shared = join(folder, 'shared.db');
    const other = join(folder, 'other.db');
    const table = 'PRAGMA journal_mode = WAL; CREATE TABLE t(x);';
    for (const path of [shared, other]) await shell.run(path, table);
    const sharedSession = await shell.open(shared);
    const otherSession = await shell.open(other);
    const url = (name: string): string => `${base}/backups/${name}`;
    const config = join(folder, 'jetlite.yml');
    const entry = (path: string, name: string): string =>
      `  - path: ${path}\n    replica: {url: "${url(name)}"}\n`;
    await writeFile(config, `dbs:\n${entry(shared, 'shared')}${entry(other, 'other')}`);

    const sleeper = startJetlite(['replicate', '--config', config]);
    t.after(() => sleeper.child.kill('SIGKILL'));
    await sleeper.shows(/replicating .*shared\.db/);
    await sleeper.shows(/replicating .*other\.db/);
    const [{ maxTxid: before }] = (await untilAbove(url('shared'), 0n)).slice(-1);
    sleeper.child.kill('SIGSTOP');
    const awake = startJetlite(['replicate', shared, url('shared'), '--state-dir', join(folder, 'state')]);
    t.after(() => awake.child.kill('SIGKILL'));
    await awake.shows(/replicating .*shared\.db/);
    let last = before;
    for (let i = 0; i < 3; i++) {
      await sharedSession.run(`INSERT INTO t VALUES ('awake ${i}');`);
      last = (await untilAbove(url('shared'), last)).at(-1)!.maxTxid;
    }
    const theirs = await untilAbove(url('shared'), before);

    sleeper.child.kill('SIGCONT');
    await sharedSession.run(`INSERT INTO t VALUES ('both');`);
    // Whichever notices first, the next put or the watch.
    await sleeper.shows(/was put by|another writer put|writes to .* as well/);
    const otherFiles = await untilAbove(url('other'), 0n);
    await otherSession.run(`INSERT INTO t VALUES ('still here');`);
    await untilAbove(url('other'), otherFiles.at(-1)!.maxTxid);
    await untilAbove(url('shared'), last);

    sleeper.child.kill('SIGTERM');
    awake.child.kill('SIGTERM');
    const [slept, stayed] = await Promise.all([sleeper.ended, awake.ended]);
    assert.equal(slept.exitCode, 1, slept.stderr);
    assert.equal(stayed.exitCode, 0, stayed.stderr);
    const who = `\\(process ${awake.child.pid}\\)`;
    assert.match(
      slept.stderr,
      new RegExp(`was put by .*${who}.* at 20\\d\\d-|${who} writes to .* a state of 20\\d\\d-`),
    );
    const now = await untilAbove(url('shared'), 0n);
    assert.deepEqual(now.slice(0, theirs.length), theirs, 'what the other had put');
    for (const [path, name] of [
      [shared, 'shared'],
      [other, 'other'],
    ] as const) {
      const restored = join(folder, `${name}-restored.db`);
      const run = await jetlite(['restore', url(name), '-o', restored]);
      assert.equal(run.exitCode, 0, run.stderr);
      await shell.run(path, 'PRAGMA wal_checkpoint(TRUNCATE);');
      assert.equal(await firstDifference(path, restored), undefined, name);
    }
  });
}
