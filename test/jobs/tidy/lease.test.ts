import assert from 'node:assert/strict';
import { once } from 'node:events';
import { LeaseLostError } from '../../../lib/errors.js';
import { holdLease, type Lease } from '../../../lib/jobs/tidy/lease.js';
import type { Replica } from '../../../lib/replica/replica.js';
import { inEveryHome, replicaWith } from '../../support/homes.js';
import { bytes, target } from '../../support/replica.js';

/** The same replica at a later time of its own clock. */
function later(replica: Replica, ms: number): Replica {
  return replicaWith(replica, { clock: async () => (await replica.clock()) + ms });
}

function promised(): { promise: Promise<void>; resolve: () => void } {
  let resolve = () => {};
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}

inEveryHome('of many who want the lease one at a time works, and nobody waits', async (open) => {
  const replicas = await Promise.all([open(), open(), open()]);
  const rounds = process.env.JETLITE_LONG === '1' ? 100 : 12;
  let working = 0;
  let worked = 0;
  let busy = 0;
  const work = async () => {
    assert.equal(++working, 1);
    await new Promise((resolve) => setImmediate(resolve));
    working--;
    worked++;
  };
  const wish = async (replica: Replica) => {
    for (let round = 0; round < rounds; round++) {
      const leased = await holdLease(replica, work);
      if (leased.kind === 'busy') busy++;
    }
  };
  await Promise.all([...replicas, ...replicas].map(wish));
  assert.equal(worked + busy, 6 * rounds);
  assert.ok(worked > 0);
  assert.equal(await replicas[0].readExtra('lease'), undefined);
});

inEveryHome('a lease says who holds it, and is given back when the work fails', async (open) => {
  const [one, two] = [await open(), await open()];
  await assert.rejects(
    holdLease(one, async () => {
      const leased = await holdLease(two, async () => assert.fail('it is taken'));
      assert.ok(leased.kind === 'busy' && leased.holder.includes(`process ${process.pid}`));
      throw new Error('the work failed');
    }),
    /the work failed/,
  );
  assert.equal((await holdLease(two, async () => 7)).kind, 'done');
});

inEveryHome(
  'a holder that slept for longer than the lease lives finds its writes and removals refused',
  async (open) => {
    const [sleeper, other] = [await open(), await open()];
    const file = await other.write(target(1, 1n, 2n), bytes('merged'));
    const slept = promised();
    const woken = promised();
    const sleeping = holdLease(sleeper, async (lease) => {
      slept.resolve();
      await woken.promise;
      const late = { ...target(1, 3n, 4n), lease: lease.version };
      await assert.rejects(sleeper.write(late, bytes('late')), LeaseLostError);
      await sleeper.remove([file], lease.version);
    });
    await slept.promise;
    assert.equal((await holdLease(later(other, 20_000), async () => {})).kind, 'busy');
    const leased = await holdLease(later(other, 40_000), async (lease) => {
      woken.resolve();
      await assert.rejects(sleeping, LeaseLostError);
      await other.write({ ...target(1, 3n, 4n), lease: lease.version }, bytes('mine'));
    });
    assert.equal(leased.kind, 'done');
    assert.equal((await other.list()).length, 2);
  },
);

inEveryHome('while its holder gives signs of life, a lease does not expire', async (open) => {
  const [holder, other] = [await open(), await open()];
  const signed = promised();
  let writes = 0;
  const watched = replicaWith(holder, {
    writeExtra: async (name, content, replaces) => {
      const version = await holder.writeExtra(name, content, replaces);
      if (name === 'lease-sign' && ++writes === 2) signed.resolve();
      return version;
    },
  });
  const leased = await holdLease(
    watched,
    async () => {
      await signed.promise;
      // The lease itself is old by now; the sign of life is not.
      const old = replicaWith(other, {
        readExtra: async (name) => {
          const extra = await other.readExtra(name);
          return extra && name === 'lease' ? { ...extra, writtenMs: extra.writtenMs - 60_000 } : extra;
        },
      });
      assert.equal((await holdLease(old, async () => {})).kind, 'busy');
    },
    { lifeMs: 300 },
  );
  assert.equal(leased.kind, 'done');
});

inEveryHome('a holder notices that its lease was taken, and is told to end', async (open) => {
  const [holder, other] = [await open(), await open()];
  let taken: Lease | undefined;
  const working = holdLease(
    holder,
    async (lease) => {
      taken = lease;
      await other.removeExtra('lease');
      await once(lease.signal, 'abort');
      throw new Error('ended as told');
    },
    { lifeMs: 150 },
  );
  await assert.rejects(working, LeaseLostError);
  assert.ok(taken?.signal.aborted);
});

inEveryHome('a lease of a clock that was set back, and one that cannot be read, expire', async (open) => {
  const replica = await open();
  await replica.writeExtra('lease', Buffer.from('no JSON'));
  assert.equal((await holdLease(replica, async () => {})).kind, 'busy');
  assert.equal((await holdLease(later(replica, 60_000), async () => {})).kind, 'done');
  await replica.writeExtra('lease', Buffer.from('{"life_ms": 1e300}'));
  assert.equal((await holdLease(later(replica, -3_600_000), async () => {})).kind, 'done');
});

inEveryHome('a holder that calls itself by control characters is told without them', async (open) => {
  const replica = await open();
  const text = JSON.stringify({ holder: '\u001b[2J\nnobody', nonce: 'x', life_ms: 600_000 });
  await replica.writeExtra('lease', Buffer.from(text));
  const leased = await holdLease(replica, async () => {});
  assert.deepEqual(leased, { kind: 'busy', holder: '\u{fffd}[2J\u{fffd}nobody' });
});
