/** The segment files of a spool: their names, and what in them may be believed. */

import { randomBytes } from 'node:crypto';
import { open, readdir, unlink } from 'node:fs/promises';
import path from 'node:path';
import { performance } from 'node:perf_hooks';
import { formatTxid } from '../../ltx/header.js';
import { isWhole, readRecordHeader, recordEnd } from './spool-record.js';

/** As many records as one file holds; their TXIDs without a hole. */
export interface Segment {
  readonly file: string;
  readonly first: bigint;
  /** The checksum of the file before the first. */
  readonly previousChecksum: bigint;
  last: bigint;
  lastChecksum: bigint;
  /** Where the next record goes. */
  size: number;
  writtenAt: number;
}

const NAME = /^[0-9a-f]{16}-[0-9a-f]{8}\.spool$/;

/** Of a spool, in the state folder of its replica. */
export const SPOOL_FOLDER = 'spool';

/** A name that no other segment has; names sort as their first TXIDs do. */
export function segmentName(first: bigint): string {
  return `${formatTxid(first)}-${randomBytes(4).toString('hex')}.spool`;
}

/** The segments in a folder, in the order of their TXIDs, each as far as its records hold. The others are removed. */
export async function loadSegments(folder: string): Promise<Segment[]> {
  const segments: Segment[] = [];
  const names = await readdir(folder).catch(() => []);
  for (const file of names.filter((name) => NAME.test(name)).sort()) {
    const segment = await loadSegment(folder, file).catch(() => undefined);
    if (segment !== undefined && segment.first > (segments.at(-1)?.last ?? 0n)) segments.push(segment);
    else await unlink(path.join(folder, file)).catch(() => undefined);
  }
  return segments;
}

/**
 * How many files in a folder wait for a replica that has acknowledged everything up to that TXID, as far as names and headers
 * tell. Nothing is changed.
 */
export async function countWaiting(folder: string, acknowledged: bigint): Promise<bigint> {
  const names = (await readdir(folder).catch(() => [])).filter((name) => NAME.test(name)).sort();
  if (names.length === 0) return 0n;
  const before = BigInt(`0x${names[0].slice(0, 16)}`) - 1n;
  for (const file of names.reverse()) {
    const last = await lastTxidIn(path.join(folder, file)).catch(() => undefined);
    if (last === undefined) continue;
    const waiting = last - (acknowledged > before ? acknowledged : before);
    return waiting > 0n ? waiting : 0n;
  }
  return 0n;
}

async function lastTxidIn(segment: string): Promise<bigint | undefined> {
  let last: bigint | undefined;
  const handle = await open(segment, 'r');
  try {
    const { size } = await handle.stat();
    for (let at = 0; ; ) {
      const record = await readRecordHeader(handle, at, size);
      if (record === undefined) return last;
      last = record.txid;
      at = recordEnd(record);
    }
  } finally {
    await handle.close();
  }
}

/** Undefined if not even the first record is whole. */
async function loadSegment(folder: string, file: string): Promise<Segment | undefined> {
  let segment: Segment | undefined;
  const handle = await open(path.join(folder, file), 'r');
  try {
    const { size } = await handle.stat();
    for (;;) {
      const record = await readRecordHeader(handle, segment?.size ?? 0, size);
      if (record === undefined || !(await isWhole(handle, record))) return segment;
      const { txid, previousChecksum, fileChecksum } = record;
      const end = { last: txid, lastChecksum: fileChecksum, size: recordEnd(record) };
      if (segment === undefined) {
        segment = { file, first: txid, previousChecksum, writtenAt: performance.now(), ...end };
      } else {
        if (txid !== segment.last + 1n || previousChecksum !== segment.lastChecksum) return segment;
        Object.assign(segment, end);
      }
    }
  } finally {
    await handle.close();
  }
}
