import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { ConflictError, LeaseLostError } from '../../lib/errors.js';
import { openFileReplica } from '../../lib/replica/file.js';
import type { Replica } from '../../lib/replica/replica.js';
import { inEveryHome } from '../support/homes.js';
import { bytes, contentOf, target } from '../support/replica.js';
import { scratchFolder } from '../support/scratch.js';

async function textOf(replica: Replica, name: string): Promise<string | undefined> {
  const extra = await replica.readExtra(name);
  return extra && Buffer.from(extra.bytes).toString();
}

inEveryHome('companions are written whole, read back, removed, and are not in the listing', async (open) => {
  const replica = await open();
  assert.equal(await replica.readExtra('sums'), undefined);
  await replica.writeExtra('sums', Buffer.from('one'));
  await replica.writeExtra('sums', randomBytes(1_100_000));
  const version = await replica.writeExtra('sums', Buffer.from('two'));
  assert.equal(await textOf(replica, 'sums'), 'two');
  assert.equal((await replica.readExtra('sums'))?.version, version);
  assert.deepEqual(await replica.list(), []);
  await replica.removeExtra('sums');
  await replica.removeExtra('sums');
  assert.equal(await replica.readExtra('sums'), undefined);
  await assert.rejects(replica.writeExtra('../escape', Buffer.from('')), { code: 'USAGE' });
});

inEveryHome('a companion replaces the version that its writer saw, and no other', async (open) => {
  const [one, two] = [await open(), await open()];
  const first = await one.writeExtra('note', Buffer.from('first'), 'nothing');
  await assert.rejects(two.writeExtra('note', Buffer.from('other'), 'nothing'), ConflictError);
  const second = await two.writeExtra('note', Buffer.from('second'), first);
  assert.notEqual(second, first);
  await assert.rejects(one.writeExtra('note', Buffer.from('late'), first), ConflictError);
  await assert.rejects(one.removeExtra('note', first), ConflictError);
  assert.equal(await textOf(one, 'note'), 'second');
  await one.removeExtra('note', second);
  assert.equal(await two.readExtra('note'), undefined);
  await assert.rejects(one.writeExtra('note', Buffer.from('late'), second), ConflictError);
  await two.writeExtra('note', Buffer.from('anew'), 'nothing');
  assert.equal(await textOf(one, 'note'), 'anew');
});

inEveryHome('of writers racing to create or replace a companion exactly one wins', async (open) => {
  const writers = await Promise.all([open(), open(), open()]);
  let standing = 'nothing';
  for (let race = 0; race < 20; race++) {
    const results = await Promise.allSettled(
      writers.map((writer, i) => writer.writeExtra('race', Buffer.from(`${race} by ${i}`), standing)),
    );
    const winners = results.flatMap((result, i) => (result.status === 'fulfilled' ? [i] : []));
    assert.equal(winners.length, 1, `race ${race}: ${JSON.stringify(results)}`);
    for (const result of results) {
      if (result.status === 'rejected') assert.ok(result.reason instanceof ConflictError, `${result.reason}`);
    }
    assert.equal(await textOf(writers[0], 'race'), `${race} by ${winners[0]}`);
    standing = (results[winners[0]] as PromiseFulfilledResult<string>).value;
    if (race % 5 === 4) {
      await writers[0].removeExtra('race', standing);
      standing = 'nothing';
    }
  }
});

inEveryHome('a companion’s age is told by the home’s own clock', async (open) => {
  const replica = await open();
  const before = await replica.clock();
  await replica.writeExtra('lease', Buffer.from('x'));
  const { writtenMs } = (await replica.readExtra('lease'))!;
  const after = await replica.clock();
  // A file system counts in ticks of some milliseconds.
  assert.ok(before - 20 <= writtenMs && writtenMs <= after + 20, `${before} ${writtenMs} ${after}`);
});

inEveryHome(
  'a file under a lease gets its name only while that version of the lease stands',
  async (open) => {
    const [holder, other] = [await open(), await open()];
    const lease = await holder.writeExtra('lease', Buffer.from('holder'), 'nothing');
    const small = await holder.write({ ...target(1, 1n, 4n), lease }, bytes('small'));
    assert.equal(await contentOf(other, small), 'small');
    const large = randomBytes(1_500_000);
    await holder.write({ ...target(1, 5n, 8n), lease }, () => [large]);
    await holder.write({ ...target(1, 5n, 8n), lease }, () => [large]);
    const replaced = await holder.write({ ...target(1, 5n, 8n), lease }, bytes('another'));
    const taken = await other.writeExtra('lease', Buffer.from('other'), lease);
    await assert.rejects(holder.write({ ...target(1, 9n, 9n), lease }, bytes('late')), LeaseLostError);
    await assert.rejects(
      holder.write({ ...target(1, 9n, 9n), lease }, () => [large]),
      LeaseLostError,
    );
    await assert.rejects(holder.remove([small], lease), LeaseLostError);
    const late = { ...target(1, 5n, 8n), replaces: replaced.version!, lease };
    await assert.rejects(holder.write(late, bytes('late')), LeaseLostError);
    assert.deepEqual(await other.list(1), [small, replaced]);
    await other.remove([small], taken);
    await other.removeExtra('lease', taken);
    await assert.rejects(other.write({ ...target(1, 9n, 9n), lease: taken }, bytes('after')), LeaseLostError);
    assert.deepEqual(await other.list(), [replaced]);
  },
);

inEveryHome('a lease lost while the bytes are under way keeps the file from its name', async (open) => {
  const [holder, other] = [await open(), await open()];
  const lease = await holder.writeExtra('lease', Buffer.from('holder'));
  const slow = async function* () {
    yield randomBytes(700_000);
    await other.writeExtra('lease', Buffer.from('other'), lease);
    yield randomBytes(700_000);
  };
  await assert.rejects(holder.write({ ...target(2, 1n, 4n), lease }, slow), LeaseLostError);
  assert.deepEqual(await other.list(), []);
});

inEveryHome('under a lease, too, the version that was listed is replaced and no other', async (open) => {
  const [holder, stranger] = [await open(), await open()];
  const first = await holder.write(target(1, 1n, 4n), bytes('first'));
  const lease = await holder.writeExtra('lease', Buffer.from('holder'));
  const second = await stranger.write(target(1, 1n, 4n, 1_700_000_000_456), bytes('second'));
  const late = { ...target(1, 1n, 4n), replaces: first.version!, lease };
  await assert.rejects(holder.write(late, bytes('late')), (error) => {
    return error instanceof ConflictError && !(error instanceof LeaseLostError);
  });
  await holder.write({ ...late, replaces: second.version! }, bytes('third'));
  assert.equal(await contentOf(stranger, (await stranger.list())[0]), 'third');
});

test('folder: what a killed writer of a companion left is in nobody’s way', async (t) => {
  const path = await scratchFolder(t);
  const replica = await openFileReplica(path);
  const first = await replica.writeExtra('lease', Buffer.from('first'));
  await writeFile(join(path, 'jetlite', '.lease.0123456789abcdef.tmp'), 'half');
  await replica.writeExtra('lease', Buffer.from('second'), first);
  assert.equal(await textOf(replica, 'lease'), 'second');
  assert.deepEqual(await readdir(join(path, 'jetlite')), ['.lease.0123456789abcdef.tmp', 'lease']);
});
