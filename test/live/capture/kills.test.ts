/** Jetlite stopped and killed at any instant: what it has written stays true, and nothing is missing at the end. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { CaptureStage, LONG } from '../../support/capture-stage.js';

/** Name and digest of every LTX file of a folder replica. */
async function ltxDigests(replica: string): Promise<Map<string, string>> {
  const digests = new Map<string, string>();
  const names = await readdir(replica, { recursive: true }).catch(() => []);
  for (const name of names) {
    if (!/[/\\][0-9a-f]{16}-[0-9a-f]{16}\.ltx$/.test(name)) continue;
    digests.set(
      name,
      createHash('sha256')
        .update(await readFile(join(replica, name)))
        .digest('hex'),
    );
  }
  return digests;
}

test('stopped for a while and killed at random: every TXID is a committed state, none is used twice', async (t) => {
  const stage = await CaptureStage.open(t);
  if (!stage) return;
  const writer = await stage.writer({ rate: 400, cacheSize: 50, rows: [300, 2000], rollbackShare: 0.05 });
  let replication = await stage.replicate();
  const rounds = LONG ? 200 : 14;
  const known = new Map<string, string>();
  let stops = 0;
  for (let round = 0; round < rounds; round++) {
    await sleep(250 * Math.random());
    if (Math.random() < 0.3) {
      stops++;
      replication.signal('SIGSTOP');
      await sleep(300 * Math.random());
      if (Math.random() < 0.5) await writer.checkpoint('TRUNCATE');
      replication.signal('SIGCONT');
    } else {
      await replication.kill();
      for (const [name, digest] of await ltxDigests(stage.replica)) {
        assert.equal(digest, known.get(name) ?? digest, `${name} has changed`);
        known.set(name, digest);
      }
      if (Math.random() < 0.3) await sleep(200 * Math.random());
      replication = await stage.replicate();
      if (Math.random() < 0.7) await replication.ready();
    }
  }
  await replication.ready();
  await writer.stop();
  await replication.stop();
  for (const [name, digest] of await ltxDigests(stage.replica)) {
    assert.equal(digest, known.get(name) ?? digest, `${name} has changed`);
  }
  const proof = await stage.prove();
  t.diagnostic(`${rounds} rounds (${stops} stops), ${proof.proven} of ${proof.txids} TXIDs proven`);
  assert.ok(proof.txids > rounds / 4);
});

test('told to stop as soon as it starts, it still takes what was committed before', async (t) => {
  const stage = await CaptureStage.open(t);
  if (!stage) return;
  const writer = await stage.writer({ commits: 300 });
  await writer.report();
  await (await stage.replicate()).stop();
  await stage.prove();
  await (await stage.writer({ commits: 300, seed: 2 })).report();
  await (await stage.replicate()).stop();
  assert.equal((await stage.prove()).txids, 2);
});
