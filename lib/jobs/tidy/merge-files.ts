/**
 * Merges files of a replica into one of the same replica, in bounded memory and with few files open, whatever their
 * number.
 *
 * Small files are fetched a few at a time and gathered in memory, each run of them as one input of the merge; large ones
 * stream, all at once, since a merge goes through its inputs side by side. What is too much for one merge is cut: the
 * caller takes as many files as `mergeable` allows, and goes on from there with the next merge.
 */

import { randomBytes } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { PageSums } from '../../capture/page-sums.js';
import { throwIfAborted } from '../../errors.js';
import type { Crc64 } from '../../ltx/crc64.js';
import { GatheredPages } from '../../ltx/gathered-pages.js';
import { type LtxMergeInput, mergeLtx } from '../../ltx/merge.js';
import { ltxPath, SNAPSHOT_LEVEL } from '../../replica/names.js';
import type { ByteSource, LtxFileInfo, Replica } from '../../replica/replica.js';
import { readAhead } from '../rebuild/read-ahead.js';
import { trailerChecksum } from '../rebuild/trailer.js';
import type { Lease } from './lease.js';
import { writeSnapshotSums } from './snapshot-sums.js';

/** Files up to this size are gathered, bytes. */
const SMALL_FILE = 512 * 1024;
/** Bytes of small files in one merge. */
const GATHER_LIMIT = 16 * 1024 * 1024;
/** Large files in one merge. */
const STREAMS = 8;
const FETCHED_AT_ONCE = 4;
/** Of eight million pages; more go to a file. */
const SUMS_MEMORY_BYTES = 64 * 1024 * 1024;

export interface MergeTarget {
  readonly level: number;
  /** The first TXID of the merged file; the last is that of the last file. */
  readonly minTxid: bigint;
}

/** How many of the first `files` one merge can take; at least 1. */
export function mergeable(files: readonly LtxFileInfo[]): number {
  let gathered = 0;
  let streams = 0;
  for (const [i, { size }] of files.entries()) {
    if (size > SMALL_FILE) streams++;
    else gathered += size;
    if (streams > STREAMS || gathered > GATHER_LIMIT) return Math.max(1, i);
  }
  return files.length;
}

/**
 * Merges `files`, in their order and each beginning at the latest where the one before ended, under the lease. A snapshot
 * gets its page sums beside it.
 * Throws FormatError naming the file that is damaged, NOT_FOUND if one is gone by now, LeaseLostError, ABORTED.
 */
export async function mergeFiles(
  replica: Replica,
  files: readonly LtxFileInfo[],
  target: MergeTarget,
  lease: Lease,
): Promise<LtxFileInfo> {
  const { level, minTxid } = target;
  const { maxTxid, timestampMs } = files[files.length - 1];
  const sums = level === SNAPSHOT_LEVEL && minTxid === 1n ? newSums() : undefined;
  let last: Uint8Array = new Uint8Array(8);
  let pageSize = 0;
  const onPage = (pgno: number, remainder: Crc64, size: number): void => {
    pageSize = size;
    sums!.recordRemainder(pgno, remainder, size);
  };
  const content: ByteSource = async function* () {
    sums?.clear();
    const inputs = await gather(replica, files, lease.signal);
    for await (const block of mergeLtx(inputs, { minTxid, onPage: sums && onPage, reuseBlocks: true })) {
      last = block;
      yield block;
      // Others on this thread have a database to follow.
      await turn();
      throwIfAborted(lease.signal, 'the merge');
    }
  };
  try {
    const named = { level, minTxid, maxTxid, timestampMs, lease: lease.version };
    const file = await replica.write(named, content, lease.signal);
    if (sums !== undefined) {
      const origin = { txid: maxTxid, fileChecksum: trailerChecksum(last) };
      await writeSnapshotSums(replica, file, sums, origin, pageSize);
    }
    return file;
  } finally {
    sums?.close();
  }
}

/** Page sums without a folder of their own. */
function newSums(): PageSums {
  const name = `.jetlite-sums-${process.pid}-${randomBytes(8).toString('hex')}`;
  return new PageSums({ memoryBytes: SUMS_MEMORY_BYTES, spillPath: join(tmpdir(), name) });
}

async function gather(
  replica: Replica,
  files: readonly LtxFileInfo[],
  signal: AbortSignal,
): Promise<(LtxMergeInput | GatheredPages)[]> {
  const inputs: (LtxMergeInput | GatheredPages)[] = [];
  for (let i = 0; i < files.length; ) {
    let end = i;
    while (end < files.length && files[end].size <= SMALL_FILE) end++;
    if (end === i) {
      inputs.push(inputOf(files[i], replica.read(files[i], undefined, { onDemand: true })));
      i++;
      continue;
    }
    const gathered = new GatheredPages();
    for await (const { file, bytes } of readAhead(replica, files.slice(i, end), FETCHED_AT_ONCE)) {
      await gathered.add(inputOf(file, bytes));
      await turn();
      throwIfAborted(signal, 'the merge');
    }
    inputs.push(gathered);
    i = end;
  }
  return inputs;
}

function inputOf(file: LtxFileInfo, source: LtxMergeInput['source']): LtxMergeInput {
  const { minTxid, maxTxid } = file;
  return { name: ltxPath(file), source, range: { minTxid, maxTxid } };
}
