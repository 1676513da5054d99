/** Listings of replicas as merging leaves them, without the files. */

import type { LtxFileInfo } from '../../lib/replica/replica.js';
import { timeOf } from './ltx-history.js';

/** TXIDs in one file of level 1, and between two snapshots. */
export const MERGED = 5;
export const SNAPSHOT_EVERY = 20;

function file(level: number, min: number, max: number): LtxFileInfo {
  return { level, minTxid: BigInt(min), maxTxid: BigInt(max), size: 100, timestampMs: timeOf(max) };
}

/** Single TXIDs up to `last`, one a second, what was merged of them, and snapshots. */
export function mergedListing(last: number): LtxFileInfo[] {
  const files: LtxFileInfo[] = [];
  for (let txid = 1; txid <= last; txid++) {
    files.push(file(0, txid, txid));
    if (txid % MERGED === 0) files.push(file(1, txid - MERGED + 1, txid));
    if (txid % SNAPSHOT_EVERY === 0) files.push(file(9, 1, txid));
  }
  return files;
}
