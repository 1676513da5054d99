import assert from 'node:assert/strict';
import { test } from 'node:test';
import { JetliteError } from '../../lib/errors.js';
import { planRestore, type RestoreWish } from '../../lib/jobs/plan.js';
import type { LtxFileInfo } from '../../lib/replica/replica.js';

const NEWEST: RestoreWish = { kind: 'newest' };

function file(level: number, min: number, max: number, size = 100, timestampMs = max * 1000): LtxFileInfo {
  return { level, minTxid: BigInt(min), maxTxid: BigInt(max), size, timestampMs };
}

function names(files: readonly LtxFileInfo[]): string[] {
  return files.map((f) => `${f.level}/${f.minTxid}-${f.maxTxid}`);
}

function refusal(files: readonly LtxFileInfo[], wish: RestoreWish): JetliteError {
  try {
    planRestore(files, wish);
  } catch (error) {
    assert.ok(error instanceof JetliteError);
    assert.equal(error.code, 'NOT_FOUND');
    return error;
  }
  assert.fail('expected a refusal');
}

test('a snapshot and the files after it, whatever their levels', () => {
  const listing = [file(0, 1, 1, 900), file(0, 2, 2), file(0, 3, 3), file(9, 1, 2, 950), file(0, 4, 4)];
  const plan = planRestore(listing, NEWEST);
  assert.deepEqual(names(plan.files), ['9/1-2', '0/3-3', '0/4-4']);
  assert.equal(plan.txid, 4n);
  assert.equal(plan.timestampMs, 4000);
  assert.equal(plan.bytes, 1150);
});

test('fewest bytes win over fewest files, and fewest files break a tie', () => {
  const listing = [
    file(9, 1, 1, 500),
    file(0, 2, 2, 10),
    file(0, 3, 3, 10),
    file(1, 2, 3, 15),
    file(9, 1, 3, 600),
  ];
  assert.deepEqual(names(planRestore(listing, NEWEST).files), ['9/1-1', '1/2-3']);
  const tied = [file(9, 1, 1, 500), file(0, 2, 2, 10), file(0, 3, 3, 10), file(1, 2, 3, 20)];
  assert.deepEqual(names(planRestore(tied, NEWEST).files), ['9/1-1', '1/2-3']);
});

test('a file that overlaps what is there is used, one that leaves a hole is not', () => {
  assert.deepEqual(names(planRestore([file(9, 1, 5), file(1, 3, 8)], NEWEST).files), ['9/1-5', '1/3-8']);
  const error = refusal([file(9, 1, 5), file(1, 7, 8)], NEWEST);
  assert.match(
    error.message,
    /breaks after TXID 0000000000000005: expected one that goes on at 0000000000000006/,
  );
  assert.match(error.message, /next file is ltx\/1\/0000000000000007-0000000000000008\.ltx/);
  assert.match(
    error.hint ?? '',
    /The only state that can be restored is 0000000000000005 \(1970-01-01T00:00:05/,
  );
});

test('going on from a state needs no snapshot, but takes one where the files between are gone', () => {
  assert.deepEqual(names(planRestore([file(0, 8, 8), file(0, 9, 9)], NEWEST, 7n).files), ['0/8-8', '0/9-9']);
  const listing = [file(0, 9, 9), file(9, 1, 8)];
  assert.deepEqual(names(planRestore(listing, NEWEST, 5n).files), ['9/1-8', '0/9-9']);
  const nothing = planRestore(listing, NEWEST, 9n);
  assert.deepEqual([nothing.files.length, nothing.txid, nothing.bytes], [0, 9n, 0]);
});

test('a TXID is met exactly or refused with its neighbours', () => {
  const listing = [file(9, 1, 4), file(1, 5, 8), file(0, 9, 9)];
  assert.equal(planRestore(listing, { kind: 'txid', txid: 8n }).txid, 8n);
  const inside = refusal(listing, { kind: 'txid', txid: 6n });
  assert.match(
    inside.message,
    /^TXID 0000000000000006 cannot be restored: the nearest below is 0000000000000004 /,
  );
  assert.match(inside.message, /the nearest above is 0000000000000008 \(1970-01-01T00:00:08\.000Z\)$/);
  assert.match(inside.hint ?? '', /^3 states can be restored, from 0{15}4 \(.*\) to 0{15}9 \(/);
  const beyond = refusal(listing, { kind: 'txid', txid: 10n });
  assert.match(beyond.message, /: the nearest below is 0000000000000009 \([^)]*\)$/);
});

test('a moment gives the last state at or before it and never a part of a later file', () => {
  const listing = [file(9, 1, 4), file(1, 5, 8), file(0, 5, 5), file(0, 6, 6)];
  const at = (timestampMs: number): bigint => planRestore(listing, { kind: 'timestamp', timestampMs }).txid;
  assert.equal(at(4000), 4n);
  assert.equal(at(5999), 5n);
  assert.equal(at(6000), 6n);
  assert.equal(at(7999), 6n);
  assert.equal(at(8000), 8n);
  const early = refusal(listing, { kind: 'timestamp', timestampMs: 3999 });
  assert.match(early.message, /as old as 1970-01-01T00:00:03\.999Z: the oldest state is 0000000000000004/);
});

test('a replica that is empty or has no snapshot says so', () => {
  assert.match(refusal([], NEWEST).message, /holds no LTX files/);
  const error = refusal([file(0, 3, 3), file(0, 4, 4)], NEWEST);
  assert.match(error.message, /no snapshot to begin with: .* the next file is ltx\/0\/0{15}3-0{15}3\.ltx/);
});

test('impossible times in a listing do not break the message', () => {
  const listing = [{ ...file(9, 1, 4), timestampMs: Number.MAX_VALUE }, file(0, 6, 6)];
  assert.match(refusal(listing, NEWEST).hint ?? '', /at an impossible time/);
});

/** Deterministic pseudo-random numbers (mulberry32), so that a failure can be repeated from its seed. */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

/** Every order-preserving choice of files is tried: the cheapest cost of each state that can be reached. */
function bruteForce(files: readonly LtxFileInfo[], have: bigint): Map<bigint, number> {
  const cheapest = new Map<bigint, number>([[have, 0]]);
  const walk = (state: bigint, bytes: number): void => {
    for (const f of files) {
      if (f.minTxid > state + 1n || f.maxTxid <= state) continue;
      const total = bytes + f.size;
      if (total < (cheapest.get(f.maxTxid) ?? Number.POSITIVE_INFINITY)) cheapest.set(f.maxTxid, total);
      walk(f.maxTxid, total);
    }
  };
  walk(have, 0);
  return cheapest;
}

/** A database of up to 6 pages whose every state is known, so that applying a plan can be compared with the truth. */
function history(length: number, below: (n: number) => number): Map<number, number>[] {
  const states: Map<number, number>[] = [new Map()];
  for (let txid = 1; txid <= length; txid++) {
    const before = states[txid - 1];
    const commit = 1 + below(6);
    const state = new Map<number, number>();
    for (let pgno = 1; pgno <= commit; pgno++) {
      const old = before.get(pgno);
      state.set(pgno, old === undefined || below(3) === 0 ? txid * 100 + pgno : old);
    }
    states.push(state);
  }
  return states;
}

/** What a file of min..max holds: the pages that are not as they were at any time since min-1, and the size. */
function pagesOf(states: Map<number, number>[], min: number, max: number): [number, number][] {
  return [...states[max]].filter(([pgno, value]) =>
    states.slice(min - 1, max).some((state) => state.get(pgno) !== value),
  );
}

function applyFiles(
  states: Map<number, number>[],
  have: bigint,
  files: readonly LtxFileInfo[],
): Map<number, number> {
  const pages = new Map(states[Number(have)]);
  for (const f of files) {
    for (const [pgno, value] of pagesOf(states, Number(f.minTxid), Number(f.maxTxid))) pages.set(pgno, value);
    const size = states[Number(f.maxTxid)].size;
    for (const pgno of pages.keys()) if (pgno > size) pages.delete(pgno);
  }
  return pages;
}

test('random listings: reachable exactly when a brute-force search says so, as cheap, and the right pages', () => {
  let planned = 0;
  let refused = 0;
  for (let seed = 1; seed <= 3000; seed++) {
    const below = random(seed);
    const length = 2 + below(8);
    const states = history(length, below);
    const times = states.map((_, txid) => txid * 1000 - (below(6) === 0 ? 1500 : 0));
    const listing: LtxFileInfo[] = [];
    for (let n = 1 + below(9); n > 0; n--) {
      const min = below(3) === 0 ? 1 : 1 + below(length);
      const max = min + below(length - min + 1);
      listing.push(file(below(10), min, max, 1 + below(20), times[max]));
    }
    const have = below(4) === 0 ? BigInt(below(length)) : 0n;
    const wishes: RestoreWish[] = [
      NEWEST,
      { kind: 'txid', txid: BigInt(1 + below(length)) },
      { kind: 'timestamp', timestampMs: below((length + 1) * 1000) },
    ];
    for (const wish of wishes) {
      const usable = listing.filter(
        (f) =>
          wish.kind === 'newest' ||
          (wish.kind === 'txid' ? f.maxTxid <= wish.txid : f.timestampMs <= wish.timestampMs),
      );
      const tops = [have, ...usable.map((f) => f.maxTxid)].map(Number);
      const target = wish.kind === 'txid' ? wish.txid : BigInt(Math.max(...tops));
      const expected = target === 0n ? undefined : bruteForce(usable, have).get(target);
      if (expected === undefined) {
        refused++;
        assert.throws(() => planRestore(listing, wish, have), { code: 'NOT_FOUND' }, `seed ${seed}`);
        continue;
      }
      planned++;
      const plan = planRestore(listing, wish, have);
      assert.equal(plan.txid, target, `seed ${seed}`);
      assert.equal(plan.bytes, expected, `seed ${seed}`);
      assert.equal(
        plan.files.reduce((sum, f) => sum + f.size, 0),
        expected,
        `seed ${seed}`,
      );
      assert.deepEqual(
        [...applyFiles(states, have, plan.files)].sort(),
        [...states[Number(target)]].sort(),
        `seed ${seed}`,
      );
    }
  }
  assert.ok(planned > 1000 && refused > 1000, `${planned} planned, ${refused} refused`);
});
