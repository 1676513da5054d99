/**
 * What is wrong in a replica is found by restore, verify and inspect alike, in a folder and in a bucket: which file, which
 * page, what was expected, what was found. Nothing comes of it.
 */

import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { inspect } from '../../cli/inspect/inspect.js';
import { JetliteError } from '../../lib/errors.js';
import { restore } from '../../lib/jobs/restore.js';
import { verify } from '../../lib/jobs/verify.js';
import { openFileReplica } from '../../lib/replica/file.js';
import { ltxPath } from '../../lib/replica/names.js';
import type { Replica } from '../../lib/replica/replica.js';
import { assertRefused, jetlite } from '../cli/run.js';
import { databaseBytes, ltxBytes, makeHistory, putLtx, random } from '../support/ltx-history.js';
import { makeBucket, openBucketReplica } from '../support/nats-replica.js';
import { startNatsServer } from '../support/nats-server.js';
import { randomSource } from '../support/random.js';
import { scratchFolder } from '../support/scratch.js';
import {
  BAD_FILES,
  CHANGE,
  change,
  filled,
  flipped,
  pageOne,
  putFiles,
  SNAPSHOT,
  snapshot,
} from './bad-files.js';

const LONG = process.env.JETLITE_LONG === '1';
async function assertFoundOut(replica: Replica, name: string, says: RegExp, folder: string, what: string) {
  const out = join(folder, 'out');
  await mkdir(out, { recursive: true });
  let message = '';
  await assert.rejects(restore({ replica, output: join(out, 'a.db') }), (error) => {
    assert.ok(error instanceof JetliteError && error.code === 'FORMAT', `${what}: ${error}`);
    message = error.message;
    assert.ok(message.startsWith(name), `${what}: ${message}`);
    assert.match(message.slice(name.length), says, what);
    return true;
  });
  assert.deepEqual(await readdir(out), [], what);
  const { sound: isSound, state, findings } = await verify({ replica });
  assert.deepEqual([isSound, state], [false, undefined], what);
  assert.deepEqual(findings, [{ check: 'replica', message }], what);
}

test('the files that the bad ones are made from are sound', async (t) => {
  const folder = await scratchFolder(t);
  const replica = await openFileReplica(join(folder, 'replica'));
  await putFiles(replica, { what: '', says: /./ });
  const output = join(folder, 'a.db');
  await restore({ replica, output });
  const expected = Buffer.concat([pageOne(3), filled(2), filled(3)]);
  assert.ok(expected.equals(await readFile(output)));
});

test('each thing that can be wrong with a file is found by restore and verify in a folder, and by inspect', async (t) => {
  const folder = await scratchFolder(t);
  for (const [i, bad] of BAD_FILES.entries()) {
    const root = join(folder, `${i}`);
    const replica = await openFileReplica(root);
    const name = await putFiles(replica, bad);
    await assertFoundOut(replica, name, bad.says, folder, bad.what);
    const report = await inspect(join(root, name), new AbortController().signal);
    // The name alone shows a file under a wrong name; the others of these need the files before them.
    assert.equal(report.isSound, bad.soundAlone === true && bad.what !== 'another name', bad.what);
    if (bad.soundAlone) continue;
    assert.match(report.problems.join('\n'), bad.says, bad.what);
  }
});

test('each thing that can be wrong with a file is found by restore and verify in a bucket', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  await makeBucket(server);
  const folder = await scratchFolder(t);
  for (const [i, bad] of BAD_FILES.entries()) {
    const replica = await openBucketReplica(t, server, `backups/${i}`);
    const name = await putFiles(replica, bad);
    await assertFoundOut(replica, name, bad.says, folder, bad.what);
    await replica.close();
  }
});

test('the program says it in a line, ends with its exit code and leaves no output', async (t) => {
  const folder = await scratchFolder(t);
  await mkdir(join(folder, 'out'));
  const chosen = ['order', 'a growth of 17 TB', 'page 1 of another database: size'];
  for (const bad of BAD_FILES.filter(({ what }) => chosen.includes(what))) {
    const root = join(folder, bad.what.replaceAll(' ', '-'));
    const name = await putFiles(await openFileReplica(root), bad);
    const restored = await jetlite(['restore', root, '-o', join(folder, 'out/a.db')]);
    assertRefused(restored, 1, bad.says);
    assert.ok(restored.stderr.startsWith(`jetlite: ${name}`), restored.stderr);
    const verified = await jetlite(['verify', root]);
    assert.equal(verified.exitCode, 3);
    assert.match(verified.stdout, bad.says);
    const inspected = await jetlite(['inspect', join(root, name)]);
    assert.deepEqual([inspected.exitCode, inspected.stderr], [bad.soundAlone ? 0 : 1, '']);
  }
  assert.deepEqual(await readdir(join(folder, 'out')), []);
});

test('a file cut off at any byte is refused, and nothing comes of it', async (t) => {
  const folder = await scratchFolder(t);
  const replica = await openFileReplica(join(folder, 'replica'));
  await putFiles(replica, { what: '', says: /./ });
  const out = join(folder, 'out');
  await mkdir(out);
  for (const [file, bytes] of [
    [SNAPSHOT, snapshot()],
    [CHANGE, change()],
  ] as const) {
    const path = join(folder, 'replica', ltxPath(file));
    for (let size = 0; size < bytes.length; size++) {
      await writeFile(path, bytes.subarray(0, size));
      await assert.rejects(restore({ replica, output: join(out, 'a.db') }), (error) => {
        assert.ok(error instanceof JetliteError && error.code === 'FORMAT', `${size}: ${error}`);
        assert.ok(error.message.startsWith(ltxPath(file)), error.message);
        assert.match(error.message, new RegExp(`expected .*, found the end of the file at byte ${size}$`));
        return true;
      });
    }
    await writeFile(path, bytes);
  }
  assert.deepEqual(await readdir(out), []);
  await restore({ replica, output: join(out, 'a.db') });
});

test('holes in a chain are named with the files beside them, overlaps lead where they should', async (t) => {
  const folder = await scratchFolder(t);
  const history = makeHistory(9, 512, 20, random(31));
  const replica = await openFileReplica(join(folder, 'replica'));
  await putLtx(replica, history, 9, 1, 3);
  await putLtx(replica, history, 1, 2, 5);
  await putLtx(replica, history, 0, 8, 8);
  await putLtx(replica, history, 1, 8, 9);
  await assert.rejects(restore({ replica, output: join(folder, 'a.db') }), (error) => {
    assert.ok(error instanceof JetliteError && error.code === 'NOT_FOUND');
    assert.match(
      error.message,
      /breaks after TXID 0{15}5: expected one that goes on at 0{15}6, but the next file/,
    );
    assert.match(error.message, /ltx\/0\/0{15}8-0{15}8\.ltx$/);
    return true;
  });
  assert.match(
    (await verify({ replica })).findings[0].message,
    /^the chain of files breaks after TXID 0{15}5/,
  );
  await putLtx(replica, history, 2, 4, 8);
  await restore({ replica, output: join(folder, 'a.db') });
  assert.ok(databaseBytes(history, 9).equals(await readFile(join(folder, 'a.db'))));
});

test('a replica with random damage is refused or restores to exactly what was put', async (t) => {
  const folder = await scratchFolder(t);
  const source = randomSource(t);
  const history = makeHistory(4, 512, 12, random(32));
  const replica = await openFileReplica(join(folder, 'replica'));
  await putLtx(replica, history, 9, 1, 1);
  for (let txid = 2; txid <= 4; txid++) await putLtx(replica, history, 0, txid, txid);
  const expected = databaseBytes(history, 4);
  const output = join(folder, 'a.db');
  let refused = 0;
  const rounds = LONG ? 20_000 : 200;
  for (let round = 0; round < rounds; round++) {
    const txid = 1 + source.below(4);
    const bytes = Buffer.from(ltxBytes(history, txid, txid));
    const file = { level: txid === 1 ? 9 : 0, minTxid: BigInt(txid), maxTxid: BigInt(txid) };
    const path = join(folder, 'replica', ltxPath(file));
    const at = source.below(bytes.length);
    const damaged = source.pick([
      () => flipped(bytes, at),
      () => bytes.subarray(0, at),
      () => Buffer.concat([bytes.subarray(0, at), source.bytes(1 + source.below(9)), bytes.subarray(at)]),
      () => Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1 + source.below(20))]),
      () => Buffer.from(ltxBytes(history, 1 + source.below(4), 4)),
    ])();
    await writeFile(path, damaged);
    try {
      await restore({ replica, output });
      assert.ok(expected.equals(await readFile(output)), `round ${round}`);
      await rm(output);
    } catch (error) {
      if (!(error instanceof JetliteError && error.code === 'FORMAT')) throw error;
      refused++;
    }
    await writeFile(path, bytes);
  }
  assert.ok(refused > rounds / 2, `${refused} of ${rounds} refused`);
  await restore({ replica, output });
});
