/** What the guard of a live copy does where Node brings SQLite: the follower runs in such a Node here. */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync, rmSync, type Stats, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { type Started, startJetlite } from '../../cli/run.js';
import { CopyReaders, CopyStage } from '../../support/copy-stage.js';
import { peer } from '../../support/peers.js';
import { scratchFolder } from '../../support/scratch.js';

async function guarded(t: TestContext, env?: Record<string, string>) {
  const node = peer(t, 'node22');
  const stage = node && (await CopyStage.open(t));
  if (!node || !stage) return undefined;
  const args = ['restore', stage.replica.url, '-o', stage.path, '-f', '--log-level', 'debug'];
  const follower = startJetlite(args, { node, ...(env === undefined ? {} : { env }) });
  t.after(() => follower.child.kill('SIGKILL'));
  await follower.shows(/ follows /);
  return { stage, follower, readers: new CopyReaders(t, stage.path) };
}

/** The process that guards a copy, once there is one that lives, and is not the one that was killed. Linux. */
async function guardOf(follower: Started, killed?: number): Promise<number> {
  const entry = fileURLToPath(new URL('../../../lib/copy/guard-child.js', import.meta.url));
  for (;;) {
    for (const name of readdirSync('/proc').filter((one) => /^\d+$/.test(one))) {
      try {
        // Behind the name, which may hold anything: its state, then its parent.
        const [state, parent] = readFileSync(`/proc/${name}/stat`, 'latin1').split(') ').at(-1)!.split(' ');
        if (Number(parent) !== follower.child.pid || /[ZX]/i.test(state) || Number(name) === killed) continue;
        if (readFileSync(`/proc/${name}/cmdline`, 'latin1').includes(entry)) return Number(name);
      } catch {
        // It has ended meanwhile.
      }
    }
    assert.equal(follower.child.exitCode, null, follower.said.stderr);
    await delay(5);
  }
}

test('a reader that could write and closes last neither removes the WAL nor keeps it', async (t) => {
  const made = await guarded(t);
  if (!made) return;
  const { stage, follower, readers } = made;
  for (let rows = 2; rows < 5; rows++) {
    await stage.row();
    await follower.shows(new RegExp(`stands at TXID ${String(rows).padStart(16, '0')}`));
    await readers.open('last', 'rw');
    assert.equal(await readers.count('last'), rows);
    await readers.close('last');
  }
  assert.ok(statSync(`${stage.path}-wal`).size > 0);
  await stage.row('zeroblob(5000000)');
  await follower.shows(/emptied the WAL/);
  await readers.open('last', 'rw');
  assert.equal(await readers.count('last'), 5);
  await readers.close('last');
  await stage.row();
  await follower.shows(/stands at TXID 0000000000000006/);
  assert.doesNotMatch(follower.said.stderr, /removed or cut/);
});

test('a reader in a transaction keeps its state while the WAL is to be emptied, and that happens behind it', async (t) => {
  const made = await guarded(t);
  if (!made) return;
  const { stage, follower, readers } = made;
  await stage.row();
  await follower.shows(/stands at TXID 0000000000000002/);
  await readers.open('held');
  await readers.run('held', 'BEGIN');
  assert.equal(await readers.count('held'), 2);
  for (let rows = 3; rows < 6; rows++) {
    await stage.row('zeroblob(3000000)');
    await follower.shows(new RegExp(`stands at TXID ${String(rows).padStart(16, '0')}`));
    assert.equal(await readers.count('held'), 2);
  }
  assert.doesNotMatch(follower.said.stderr, /emptied/);
  await readers.run('held', 'COMMIT');
  await follower.shows(/emptied the WAL/);
  assert.equal(await readers.count('held'), 5);
});

test('a follower whose guard was killed goes on, and gets another', async (t) => {
  if (process.platform !== 'linux') return t.skip('looks for a process in /proc');
  const made = await guarded(t);
  if (!made) return;
  const { stage, follower, readers } = made;
  await stage.row();
  await follower.shows(/stands at TXID 0000000000000002/);
  for (let big = 3; big < 5; big++) {
    await stage.row('zeroblob(5000000)');
    await follower.shows(new RegExp(`(emptied the WAL[^]*){${big - 2}}`));
    process.kill(await guardOf(follower), 'SIGKILL');
  }
  await stage.row();
  await follower.shows(/stands at TXID 0000000000000005/);
  const killed = await guardOf(follower);
  process.kill(killed, 'SIGKILL');
  // Also while nothing new comes.
  await guardOf(follower, killed);
  await readers.open('one');
  assert.equal(await readers.count('one'), 5);
  assert.doesNotMatch(follower.said.stderr, /removed or cut/);
});

test('a guard that cannot be had is told of once, and the copy goes on without', async (t) => {
  const module = join(await scratchFolder(t), 'no-guard.cjs');
  writeFileSync(module, "if (/guard-child/.test(process.argv[1])) process.kill(process.pid, 'SIGKILL');");
  const made = await guarded(t, { NODE_OPTIONS: `--require ${module}` });
  if (!made) return;
  const { stage, follower, readers } = made;
  for (let rows = 2; rows < 5; rows++) {
    await stage.row('zeroblob(5000000)');
    await follower.shows(new RegExp(`stands at TXID ${String(rows).padStart(16, '0')}`));
    await follower.shows(/the SQLite process that guards .* failed/);
  }
  await readers.open('one');
  assert.equal(await readers.count('one'), 4);
  assert.equal(follower.said.stderr.match(/that guards .* failed/g)?.length, 1);
});

for (const [lost, sees] of [
  ['index', 'everything'],
  ['WAL', 'what it had'],
] as const) {
  test(`a reader whose ${lost} was removed sees ${sees}, others what is new, and the WAL is not emptied under it`, async (t) => {
    if (process.platform !== 'linux') return t.skip('looks at locks in /proc');
    const made = await guarded(t);
    if (!made) return;
    const { stage, follower, readers: old } = made;
    await stage.row();
    await follower.shows(/stands at TXID 0000000000000002/);
    await old.open('old');
    assert.equal(await old.count('old'), 2);
    rmSync(`${stage.path}${lost === 'WAL' ? '-wal' : '-shm'}`);
    if (lost === 'WAL') await follower.shows(/removed or cut[\s\S]*stands at TXID 0000000000000002/);
    const fresh = new CopyReaders(t, stage.path);
    await stage.row('zeroblob(5000000)');
    await follower.shows(/stands at TXID 0000000000000003/);
    await fresh.open('fresh');
    for (let rows = 3; rows < 6; rows++) {
      assert.equal(await fresh.count('fresh'), rows);
      assert.equal(await old.count('old'), sees === 'everything' ? rows : 2);
      await stage.row('zeroblob(3000000)');
      await follower.shows(new RegExp(`stands at TXID ${String(rows + 1).padStart(16, '0')}`));
    }
    assert.doesNotMatch(follower.said.stderr, /emptied the WAL/);
    await old.close('old');
    await follower.shows(/emptied the WAL/);
    assert.equal(await fresh.count('fresh'), 6);
    await stage.row();
    await follower.shows(/stands at TXID 0000000000000007/);
    assert.equal(await fresh.count('fresh'), 7);
  });
}

test('a guard that outlives its follower keeps the next one waiting until it is gone', async (t) => {
  if (process.platform !== 'linux') return t.skip('only Linux has sockets without a file');
  const made = await guarded(t);
  if (!made) return;
  const { stage, follower, readers } = made;
  await stage.row();
  await follower.shows(/stands at TXID 0000000000000002/);
  const guard = await guardOf(follower);
  // As one that waits for its disk.
  process.kill(guard, 'SIGSTOP');
  t.after(() => isAlive(guard) && process.kill(guard, 'SIGKILL'));
  follower.child.kill('SIGKILL');
  await stage.row();
  const next = startJetlite(['restore', stage.replica.url, '-o', stage.path, '-f', '--log-level', 'debug']);
  t.after(() => next.child.kill('SIGKILL'));
  await next.shows(/waits for the SQLite process|stands at TXID/);
  assert.doesNotMatch(next.said.stderr, /stands at TXID/);
  process.kill(guard, 'SIGCONT');
  await next.shows(/stands at TXID 0000000000000003/);
  assert.doesNotMatch(next.said.stderr, /removed or cut/);
  await readers.open('one');
  assert.equal(await readers.count('one'), 3);
});

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

/** Asks a guard for something that it finds out about when the one who asked is gone. */
const ASK_AND_DIE = `
  const [module, path] = process.argv.slice(1);
  const { Guard } = await import(module);
  const guard = new Guard(path);
  await guard.turn();
  process.kill(guard.pid, 'SIGSTOP');
  guard.turn();
  console.log(guard.pid);
  process.stdin.once('data', () => process.kill(process.pid, 'SIGKILL'));
`;

test('a guard whose answer nobody hears any more leaves the WAL where it is', async (t) => {
  const node = peer(t, 'node22');
  const stage = node && (await CopyStage.open(t));
  if (!node || !stage) return;
  const copy = await stage.restoreCopy();
  await stage.row();
  await stage.apply(copy);
  copy.close();
  const { ino, size } = statSync(`${stage.path}-wal`);
  const module = new URL('../../../lib/copy/guard.js', import.meta.url).href;
  for (let round = 0; round < 5; round++) {
    const owner = spawn(node, ['--input-type=module', '-e', ASK_AND_DIE, module, stage.path]);
    let said = '';
    owner.stderr.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
    // The guard has the same stderr: it ends with the later of the two.
    const bothEnded = new Promise((resolve) => owner.on('close', resolve));
    const guard = await new Promise<number>((resolve, reject) => {
      owner.stdout.once('data', (text) => resolve(Number(text)));
      owner.once('exit', () => reject(new Error(said)));
    });
    t.after(() => isAlive(guard) && process.kill(guard, 'SIGKILL'));
    const ownerEnded = new Promise((resolve) => owner.once('exit', resolve));
    owner.stdin.write('now');
    await ownerEnded;
    process.kill(guard, 'SIGCONT');
    await bothEnded;
    assert.equal(said, '');
    const left: Stats = statSync(`${stage.path}-wal`);
    assert.deepEqual([left.ino, left.size], [ino, size]);
  }
});
