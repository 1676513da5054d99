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

function stateAt(files: readonly LtxFileInfo[], timestampMs: number): number {
  return Number(planRestore(files, { kind: 'timestamp', timestampMs }).txid);
}

test('a moment among files of level 0 that outlived those before them in a merged file gives the state before that', () => {
  const listing = [file(0, 1, 1), file(1, 2, 6), file(0, 4, 4), file(0, 5, 5), file(0, 6, 6), file(0, 7, 7)];
  const moments = [1000, 3999, 4000, 4500, 5999, 6000, 7000];
  assert.deepEqual(
    moments.map((ms) => stateAt(listing, ms)),
    [1, 1, 1, 1, 1, 6, 7],
  );
});

test('a moment in a hole that no merged file spans, or one that cannot be reached, is refused with its neighbours', () => {
  const lost = [file(9, 1, 2), file(0, 4, 4), file(0, 5, 5), file(9, 1, 6), file(0, 7, 7)];
  for (const merged of [[], [file(1, 4, 5)], [file(1, 5, 7)]]) {
    const { message } = refusal([...lost, ...merged], { kind: 'timestamp', timestampMs: 5000 });
    assert.match(message, /^the chain of files breaks after TXID 0{15}2: .* is ltx\/\d\/0{15}4-/);
    assert.match(
      message,
      /; the nearest below is 0{15}2 \(1970-01-01T00:00:02\.000Z\), the nearest above is 0{15}6 \(/,
    );
  }
  const unreached = [file(9, 1, 2), file(0, 4, 4), file(0, 5, 5), file(1, 4, 8)];
  const { message } = refusal(unreached, { kind: 'timestamp', timestampMs: 5000 });
  assert.match(message, /; the nearest below is 0{15}2 \([^)]*\)$/);
  // Of merged files none goes by age.
  const between = [file(9, 1, 2), file(1, 5, 6), file(2, 3, 8)];
  assert.match(
    refusal(between, { kind: 'timestamp', timestampMs: 6000 }).message,
    /breaks after TXID 0{15}2/,
  );
});

test('a moment after a file whose time is later than that of its successors gives the state before it', () => {
  const listing = Array.from({ length: 8 }, (_, i) => file(0, i + 1, i + 1));
  listing[2] = { ...listing[2], timestampMs: 7_200_000 };
  const moments = [2000, 4000, 6000, 8000, 7_199_999, 7_200_000];
  assert.deepEqual(
    moments.map((ms) => stateAt(listing, ms)),
    [2, 2, 2, 2, 2, 8],
  );
  const merged = [...listing, file(1, 2, 6)];
  assert.deepEqual(
    [5999, 6000, 8000].map((ms) => stateAt(merged, ms)),
    [2, 6, 8],
  );
  const lost = listing.filter(({ maxTxid }) => maxTxid !== 5n);
  assert.equal(stateAt(lost, 4000), 2);
  const { message } = refusal(lost, { kind: 'timestamp', timestampMs: 8000 });
  assert.match(message, /next file is ltx\/0\/0{15}6-.*; the nearest below is 0{15}2 \(/);
  const first = [{ ...listing[0], timestampMs: 7_200_000 }, ...listing.slice(1, 2)];
  const early = refusal(first, { kind: 'timestamp', timestampMs: 2000 });
  assert.match(early.message, /^nothing .* as old as .*: the oldest state is 0{15}1 \(1970-01-01T02/);
});

test('a snapshot that carries the time at which it was made leads to its state from when that was captured', () => {
  const listing = [file(9, 1, 4, 100, 9000), file(0, 4, 4), file(0, 5, 5)];
  assert.deepEqual(
    [4000, 4999, 5000, 9000].map((ms) => stateAt(listing, ms)),
    [4, 4, 5, 5],
  );
  refusal(listing, { kind: 'timestamp', timestampMs: 3999 });
  // Where files in time lead there, too, it is not needed.
  const older = planRestore([file(9, 1, 3, 900), ...listing], { kind: 'timestamp', timestampMs: 4000 });
  assert.deepEqual(names(older.files), ['9/1-3', '0/4-4']);
});

test('a file whose time is too early lets in no later state', () => {
  const listing = [file(9, 1, 1), file(0, 2, 2), file(0, 3, 3), file(0, 4, 4, 100, 0), file(9, 1, 4)];
  assert.deepEqual(
    [1000, 2000, 2999, 3000].map((ms) => stateAt(listing, ms)),
    [1, 2, 2, 4],
  );
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

/**
 * What a moment gives whose own files do not lead to the newest of them, as invariants 4 and 6 say it: the state and its
 * cheapest cost, or undefined where it is refused.
 */
function bruteForceMoment(
  files: readonly LtxFileInfo[],
  momentMs: number,
  have: bigint,
): { txid: bigint; bytes: number } | undefined {
  const isInTime = (f: LtxFileInfo): boolean => f.timestampMs <= momentMs;
  const inTime = files.filter(isInTime);
  const isStateInTime = (txid: bigint): boolean =>
    files.every((f) => f.maxTxid > txid || inTime.some((other) => other.maxTxid === f.maxTxid));
  const usable = files.filter((f) => isInTime(f) || isStateInTime(f.maxTxid));
  const reached = bruteForce(usable, have);
  const txid = [...reached.keys()].reduce((a, b) => (a > b ? a : b));
  const all = [...bruteForce(files, have).keys()];
  const isExplained = (f: LtxFileInfo): boolean =>
    all.includes(f.maxTxid) ||
    (f.level === 0 &&
      files.some(
        ({ level, minTxid, maxTxid }) =>
          level > 0 &&
          level < 9 &&
          minTxid <= f.minTxid &&
          maxTxid >= f.maxTxid &&
          all.some((s) => s >= minTxid - 1n && s < maxTxid),
      ));
  const isRefused = txid === 0n || usable.some((f) => f.maxTxid > txid && !isExplained(f));
  return isRefused ? undefined : { txid, bytes: reached.get(txid)! };
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
  let between = 0;
  for (let seed = 1; seed <= 3000; seed++) {
    const below = random(seed);
    const length = 2 + below(8);
    const states = history(length, below);
    const times = states.map((_, txid) => txid * 1000 - (below(6) === 0 ? 1500 : 0));
    const listing: LtxFileInfo[] = [];
    for (let n = 1 + below(9); n > 0; n--) {
      const min = below(3) === 0 ? 1 : 1 + below(length);
      const max = min + below(length - min + 1);
      const level = below(2) * below(10);
      const late = below(4) === 0 ? below(4000) : 0;
      listing.push(file(level, min, max, 1 + below(20), times[max] + late));
    }
    const have = below(4) === 0 ? BigInt(below(length)) : 0n;
    const wishes: RestoreWish[] = [
      NEWEST,
      { kind: 'txid', txid: BigInt(1 + below(length)) },
      ...[1, 2, 3].map(() => ({ kind: 'timestamp' as const, timestampMs: below((length + 1) * 1000) })),
    ];
    for (const wish of wishes) {
      const inTime = (f: LtxFileInfo): boolean =>
        wish.kind !== 'timestamp' || f.timestampMs <= wish.timestampMs;
      const usable = listing.filter((f) => inTime(f) && (wish.kind !== 'txid' || f.maxTxid <= wish.txid));
      const tops = [have, ...usable.map((f) => f.maxTxid)].map(Number);
      let target = wish.kind === 'txid' ? wish.txid : BigInt(Math.max(...tops));
      let expected = target === 0n ? undefined : bruteForce(usable, have).get(target);
      // Where the newest file in time is reached by those in time, nothing else decides.
      if (expected === undefined && wish.kind === 'timestamp') {
        const found = bruteForceMoment(listing, wish.timestampMs, have);
        if (found !== undefined) {
          between++;
          [target, expected] = [found.txid, found.bytes];
        }
      }
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
  const counts = `${planned} planned, ${between} of them between files, ${refused} refused`;
  assert.ok(planned > 1000 && between > 50 && refused > 1000, counts);
});
