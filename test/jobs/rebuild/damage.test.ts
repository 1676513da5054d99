/** A damaged file is gone around where other files lead to the same state, and only then; whoever asked is told. */

import assert from 'node:assert/strict';
import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { connect } from 'nats';
import { restore } from '../../../lib/jobs/restore.js';
import { verify } from '../../../lib/jobs/verify.js';
import { decodeLtx } from '../../../lib/ltx/decoder.js';
import { openFileReplica } from '../../../lib/replica/file.js';
import { ltxPath } from '../../../lib/replica/names.js';
import type { LtxFileInfo, Replica } from '../../../lib/replica/replica.js';
import { assertRefused, jetlite } from '../../cli/run.js';
import { inEveryHome } from '../../support/homes.js';
import {
  databaseBytes,
  type History,
  ltxBytes,
  makeHistory,
  putLtx,
  random,
} from '../../support/ltx-history.js';
import { makeBucket, openBucketReplica } from '../../support/nats-replica.js';
import { startNatsServer } from '../../support/nats-server.js';
import { randomSource } from '../../support/random.js';
import { scratchFolder } from '../../support/scratch.js';

const LENGTH = 8;
const FLIPS = process.env.JETLITE_LONG === '1' ? 400 : 25;

function historyOf(seed: number): History {
  return makeHistory(LENGTH, 512, 20, random(seed));
}

/** A snapshot of TXID 1 and the files after it, but those in `without`. */
async function putChain(replica: Replica, history: History, without: readonly number[] = []): Promise<void> {
  await putLtx(replica, history, 9, 1, 1);
  for (let txid = 2; txid <= LENGTH; txid++) {
    if (!without.includes(txid)) await putLtx(replica, history, 0, txid, txid);
  }
}

function flipped(bytes: Uint8Array, at: number, bit = 0): Uint8Array {
  const copy = bytes.slice();
  copy[at] ^= 1 << bit;
  return copy;
}

const MERGED = 'ltx/1/0000000000000002-0000000000000008.ltx';

/** Some bits of an LZ4 block mean nothing: whichever way they stand, the pages and the checksum over them are the same. */
async function isDamaged(bytes: Uint8Array): Promise<boolean> {
  try {
    await decodeLtx(MERGED, [bytes], {});
    return false;
  } catch {
    return true;
  }
}

inEveryHome(
  'whatever bit of a merged file flips, restore goes by the files that it was made of',
  async (open, t) => {
    const chance = randomSource(t);
    const folder = await scratchFolder(t);
    const replica = await open();
    const history = historyOf(3);
    await putChain(replica, history);
    const sound = ltxBytes(history, 2, LENGTH);
    for (let i = 0; i < FLIPS; i++) {
      const at = chance.below(sound.length);
      const merged = flipped(sound, at, chance.below(8));
      await putLtx(replica, history, 1, 2, LENGTH, merged);
      const output = join(folder, 'restored.db');
      const result = await restore({ replica, output, force: true });
      assert.ok(result.kind === 'restored');
      assert.ok(databaseBytes(history, LENGTH).equals(await readFile(output)), `byte ${at}`);
      assert.deepEqual(
        result.damaged.map(({ file }) => ltxPath(file)),
        (await isDamaged(merged)) ? [MERGED] : [],
        `byte ${at}`,
      );
      for (const { message } of result.damaged) {
        assert.match(message, /ltx\/1\/.*expected .*; other files lead to the same state$/);
      }
    }
  },
);

inEveryHome('no byte of a damaged file survives, not even where the right page is zeros', async (open, t) => {
  const folder = await scratchFolder(t);
  const replica = await open();
  const zeros = new Uint8Array(512);
  const states = Array.from({ length: LENGTH + 1 }, (_, txid) =>
    txid === 0 ? [] : [new Uint8Array(512).fill(txid), zeros, zeros, zeros],
  );
  const history: History = { pageSize: 512, states };
  await putChain(replica, history);
  // Without page 3: what comes before a gap is written at once.
  const wrong = states.map((pages) =>
    pages.map((page, i) => (i === 2 ? page : new Uint8Array(512).fill(0xee))),
  );
  const bytes = ltxBytes({ pageSize: 512, states: wrong }, 2, LENGTH);
  // Found at its very end, when all of it is in the output.
  await putLtx(replica, history, 1, 2, LENGTH, flipped(bytes, bytes.length - 1));
  const output = join(folder, 'restored.db');
  const result = await restore({ replica, output });
  assert.ok(result.kind === 'restored' && result.damaged.length === 1);
  assert.ok(databaseBytes(history, LENGTH).equals(await readFile(output)));
});

inEveryHome('verify reports a damaged file although a way leads around it', async (open) => {
  const replica = await open();
  const history = historyOf(3);
  await putChain(replica, history);
  const sound = ltxBytes(history, 2, LENGTH);
  await putLtx(replica, history, 1, 2, LENGTH, flipped(sound, sound.length - 1));
  const { sound: isSound, findings, state } = await verify({ replica });
  assert.ok(!isSound);
  assert.equal(state?.txid, BigInt(LENGTH));
  assert.equal(findings[0].check, 'replica');
  assert.match(findings[0].message, /^ltx\/1\/.*; other files lead to the same state$/);
});

inEveryHome(
  'where every way to the wished state is damaged, that is the error, and no older state comes',
  async (open, t) => {
    const folder = await scratchFolder(t);
    const replica = await open();
    const history = historyOf(4);
    await putChain(replica, history, [5]);
    const sound = ltxBytes(history, 2, LENGTH);
    await putLtx(replica, history, 1, 2, LENGTH, flipped(sound, sound.length - 1));
    const output = join(folder, 'out', 'restored.db');
    await mkdir(join(folder, 'out'));
    const refused = { code: 'FORMAT', message: new RegExp(`${MERGED}.*checksum`) };
    for (const wish of [{}, { txid: BigInt(LENGTH) }]) {
      await assert.rejects(restore({ replica, output, ...wish }), refused);
    }
    assert.deepEqual(await readdir(join(folder, 'out')), []);
    const verified = await verify({ replica });
    assert.deepEqual([verified.sound, verified.state], [false, undefined]);
  },
);

test('files that are sound and contradict each other are not gone around', async (t) => {
  const folder = await scratchFolder(t);
  const replica = await openFileReplica(join(folder, 'replica'));
  await putChain(replica, historyOf(3));
  // Of another database: the way of fewest bytes.
  await putLtx(replica, makeHistory(LENGTH, 1024, 1, random(5)), 1, 2, LENGTH);
  await assert.rejects(restore({ replica, output: join(folder, 'restored.db') }), {
    code: 'FORMAT',
    message: /expected pages of 512 bytes as in the files before it, found 1024/,
  });
});

test('a file of a bucket that has lost its chunks is gone around', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  await makeBucket(server);
  const folder = await scratchFolder(t);
  const history = historyOf(6);
  const writer = await openBucketReplica(t, server);
  await putChain(writer, history);
  const merged: LtxFileInfo = await putLtx(writer, history, 1, 2, LENGTH);
  const connection = await connect({ servers: server.url });
  const filter = `$O.backups.C.${merged.version?.split(':')[1]}`;
  await (await connection.jetstreamManager()).streams.purge('OBJ_backups', { filter });
  await connection.close();
  const output = join(folder, 'restored.db');
  const result = await restore({ replica: await openBucketReplica(t, server), output });
  assert.ok(result.kind === 'restored');
  assert.ok(databaseBytes(history, LENGTH).equals(await readFile(output)));
  assert.deepEqual(
    result.damaged.map(({ file }) => ltxPath(file)),
    [MERGED],
  );
});

test('the program warns of the file, names it in its JSON, and ends with 0; verify ends with 3', async (t) => {
  const folder = await scratchFolder(t);
  const root = join(folder, 'replica');
  const replica = await openFileReplica(root);
  const history = historyOf(7);
  await putChain(replica, history);
  const sound = ltxBytes(history, 2, LENGTH);
  await putLtx(replica, history, 1, 2, LENGTH, flipped(sound, sound.length - 1));
  const output = join(folder, 'restored.db');
  const run = await jetlite(['restore', root, '-o', output, '--json']);
  assert.equal(run.exitCode, 0, run.stderr);
  assert.match(run.stderr, new RegExp(`WARN .*${MERGED}.*other files lead to the same state`));
  const { damaged } = JSON.parse(run.stdout);
  assert.deepEqual(
    damaged.map(({ file }: { file: string }) => file),
    [MERGED],
  );
  assert.ok(databaseBytes(history, LENGTH).equals(await readFile(output)));
  const verified = await jetlite(['verify', root]);
  assert.equal(verified.exitCode, 3);
  assert.match(verified.stdout, new RegExp(`replica: ${MERGED}`));
  await replica.remove((await replica.list(0)).filter(({ maxTxid }) => maxTxid === 5n));
  assertRefused(await jetlite(['restore', root, '-o', join(folder, 'b.db')]), 1, /checksum/);
});
