/**
 * A database's history as plain page arrays, and LTX files made of it: what a replica must lead back to is known byte for
 * byte. The pages are no SQLite pages; restoring does not look into them.
 */

import { LtxEncoder } from '../../lib/ltx/encoder.js';
import { LTX_FLAG_NO_CHECKSUM } from '../../lib/ltx/header.js';
import type { LtxFileInfo, Replica } from '../../lib/replica/replica.js';

/** The pages of one state, page 1 first. */
export type State = readonly Uint8Array[];

export interface History {
  readonly pageSize: number;
  /** By TXID; state 0 is empty. */
  readonly states: readonly State[];
}

/** When each state was captured: one a second. */
export function timeOf(txid: number): number {
  return 1_700_000_000_000 + txid * 1000;
}

/** Deterministic pseudo-random numbers (mulberry32), so that a failure can be repeated from its seed. */
export function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

/** Grows, shrinks and changes; some pages are all zeros. */
export function makeHistory(
  length: number,
  pageSize: number,
  maxPages: number,
  below: (n: number) => number,
): History {
  const states: State[] = [[]];
  for (let txid = 1; txid <= length; txid++) {
    const before = states[txid - 1];
    const pages: Uint8Array[] = [];
    for (let i = 1 + below(maxPages); pages.length < i; ) {
      const old = before[pages.length];
      pages.push(old !== undefined && below(3) > 0 ? old : makePage(pageSize, below));
    }
    states.push(pages);
  }
  return { pageSize, states };
}

function makePage(pageSize: number, below: (n: number) => number): Uint8Array {
  const page = new Uint8Array(pageSize);
  if (below(4) === 0) return page;
  // Half noise, half repetition: compressible as real pages are.
  for (let i = 0; i < pageSize; i++) page[i] = i < pageSize / 2 ? below(256) : page[i - 7];
  return page;
}

/** The bytes of the database file in a state. */
export function databaseBytes(history: History, txid: number): Buffer {
  return Buffer.concat(history.states[txid]);
}

/** The LTX file that holds what changed in min..max; a snapshot if min is 1. */
export function ltxBytes(
  history: History,
  min: number,
  max: number,
  timestampMs: number = timeOf(max),
): Uint8Array {
  const pages = history.states[max];
  const encoder = new LtxEncoder({
    flags: LTX_FLAG_NO_CHECKSUM,
    pageSize: history.pageSize,
    commit: pages.length,
    minTxid: BigInt(min),
    maxTxid: BigInt(max),
    timestampMs,
    preApplyChecksum: 0n,
    walOffset: 0,
    walSize: 0,
    walSalt1: 0,
    walSalt2: 0,
    nodeId: 0n,
  });
  for (const [i, page] of pages.entries()) {
    if (min === 1 || history.states.slice(min - 1, max).some((state) => state[i] !== page)) {
      encoder.writePage(i + 1, page);
    }
  }
  return encoder.finish();
}

/** Puts the file of min..max into a replica; `bytes` may be something else than what belongs there. */
export function putLtx(
  replica: Replica,
  history: History,
  level: number,
  min: number,
  max: number,
  bytes: Uint8Array = ltxBytes(history, min, max),
): Promise<LtxFileInfo> {
  const target = { level, minTxid: BigInt(min), maxTxid: BigInt(max), timestampMs: timeOf(max) };
  return replica.write(target, () => [bytes]);
}
