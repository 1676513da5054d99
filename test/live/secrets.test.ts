/** Where a password that Jetlite was given must never be seen: in the arguments of any of its processes, in its log. */

import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { replicateInChild } from '../../lib/jobs/replicate-child.js';
import { jetlite, type Started, startJetlite } from '../cli/run.js';
import { type NatsServer, startNatsServer } from '../support/nats-server.js';
import { peer } from '../support/peers.js';
import { scratchFolder } from '../support/scratch.js';
import { type SqliteShell, sqliteShell } from '../support/sqlite.js';

const PASSWORD = 'open-sesame-4711';
const LINUX = { skip: existsSync('/proc/self/cmdline') ? false : 'needs /proc' };

interface Stage {
  readonly server: NatsServer;
  /** With user and password. */
  readonly url: string;
  readonly database: string;
  readonly sqlite: SqliteShell;
}

async function openStage(t: TestContext): Promise<Stage | undefined> {
  const sqlite = sqliteShell(t);
  const server =
    sqlite && (await startNatsServer(t, { config: `authorization { user: ali, password: "${PASSWORD}" }` }));
  if (sqlite === undefined || server === undefined) return undefined;
  const url = server.url.replace('//', `//ali:${PASSWORD}@`);
  const made = await jetlite(['bucket', 'create', 'backups'], { env: { NATS_URL: url } });
  assert.equal(made.exitCode, 0, made.stderr);
  const database = join(await scratchFolder(t), 'app.db');
  await sqlite.run(database, 'PRAGMA journal_mode = wal; CREATE TABLE note (text);');
  return { server, url, database, sqlite };
}

/** Empty if the process has ended. */
function proc(pid: number, file: 'stat' | 'cmdline' | 'environ'): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'latin1');
  } catch {
    return '';
  }
}

/** The process and all that came from it. */
function familyOf(pid: number): number[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  const parents = pids.map((name) => {
    const stat = proc(Number(name), 'stat');
    return [Number(name), Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])] as const;
  });
  const found = [pid];
  for (const one of found) for (const [child, parent] of parents) if (parent === one) found.push(child);
  return found;
}

/** What stands in the list of processes. The number of processes is the answer. */
function assertHidden(pid: number): number {
  const family = familyOf(pid);
  for (const one of family) {
    for (const file of ['stat', 'cmdline'] as const) {
      assert.ok(!proc(one, file).includes(PASSWORD), `${file}: ${proc(one, file)}`);
    }
  }
  return family.length;
}

function killFamily({ child, ended }: Started): Promise<unknown> {
  if (child.exitCode === null) for (const pid of familyOf(child.pid!)) process.kill(pid, 'SIGKILL');
  return ended;
}

async function assertSilent(started: Started): Promise<void> {
  started.child.kill('SIGTERM');
  const { stdout, stderr } = await started.ended;
  assert.ok(!`${stdout}${stderr}`.includes(PASSWORD), stderr);
}

for (const where of ['environment', 'command line']) {
  test(
    `a password in the ${where} is not in the list of processes and not in the log, whatever happens`,
    LINUX,
    async (t) => {
      const stage = await openStage(t);
      if (stage === undefined) return;
      const { server, url, database, sqlite } = stage;
      const isGiven = where === 'command line';
      const replica = isGiven ? `${url}/backups` : 'nats:///backups';
      const options = isGiven ? {} : { env: { NATS_URL: url } };
      const args = ['replicate', database, replica, '--log-level', 'debug', '--exec', 'sleep 1000'];
      const replicating = startJetlite(args, options);
      t.after(() => killFamily(replicating));
      await replicating.shows(/is durable/);
      assert.equal(assertHidden(replicating.child.pid!), 2);
      await server.kill();
      await replicating.shows(/connection to the NATS server was lost/);
      await sqlite.run(database, "INSERT INTO note VALUES ('while away');");
      await replicating.shows(/waits on disk/);
      await server.restart();
      await replicating.shows(/connected again/);
      assertHidden(replicating.child.pid!);
      await assertSilent(replicating);
      const refused = await jetlite(['ltx', `${url.replace('ali', 'bob')}/backups`, '--log-level', 'debug']);
      assert.equal(refused.exitCode, 1);
      assert.ok(!`${refused.stdout}${refused.stderr}`.includes(PASSWORD), refused.stderr);
    },
  );
}

test('the process that guards a live copy knows nothing of the password', LINUX, async (t) => {
  const node = peer(t, 'node22');
  const stage = node && (await openStage(t));
  if (!stage) return;
  const { url, database } = stage;
  const backup = await jetlite(['backup', database, `${url}/backups`]);
  assert.equal(backup.exitCode, 0, backup.stderr);
  const args = ['restore', `${url}/backups`, '-o', `${database}-copy`, '-f', '--log-level', 'debug'];
  const follower = startJetlite(args, { node });
  t.after(() => killFamily(follower));
  await follower.shows(/ follows /);
  while (familyOf(follower.child.pid!).length < 2) await delay(20);
  assertHidden(follower.child.pid!);
  for (const pid of familyOf(follower.child.pid!)) {
    assert.ok(pid === follower.child.pid || !proc(pid, 'environ').includes(PASSWORD));
  }
  await assertSilent(follower);
});

test(
  'a replicating child process has the password in neither its arguments nor its environment',
  LINUX,
  async (t) => {
    const stage = await openStage(t);
    if (stage === undefined) return;
    const { server, url, database } = stage;
    const given = [
      { replica: `${url}/backups/one` },
      {
        replica: `${server.url}/backups/two`,
        replicaOptions: { nats: { username: 'ali', password: PASSWORD } },
      },
    ];
    for (const options of given) {
      const stopping = new AbortController();
      const said: string[] = [];
      let pid = 0;
      const { txid } = await replicateInChild(
        {
          ...options,
          database,
          signal: stopping.signal,
          onEvent: ({ type, message }) => {
            said.push(message);
            if (type !== 'ready') return;
            assertHidden(pid);
            said.push(proc(pid, 'environ'));
            stopping.abort();
          },
        },
        (started) => {
          pid = started;
        },
      );
      assert.equal(txid, 1n);
      assert.ok(said.length > 1 && !said.join().includes(PASSWORD));
    }
  },
);
