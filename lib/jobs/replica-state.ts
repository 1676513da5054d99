/**
 * What a replica holds: where its chain ends, and the page sums of that state.
 */

import type { PageSums } from '../capture/page-sums.js';
import { JetliteError } from '../errors.js';
import { decodeLtx } from '../ltx/decoder.js';
import { ltxPath } from '../replica/names.js';
import type { LtxFileInfo, Replica } from '../replica/replica.js';
import { planRestore } from './plan.js';

export interface ReplicaState {
  /** TXID of the newest state; 0 if the replica is empty. */
  readonly txid: bigint;
  /** Time of the newest file, ms since the epoch; 0 if the replica is empty. */
  readonly timestampMs: number;
}

export interface LoadProgress {
  readonly bytes: number;
  readonly totalBytes: number;
}

/**
 * Reads the files that rebuild the newest state and records the sums of its pages.
 * @param pageSize of the database that is to go on with this chain
 * @throws JetliteError DATABASE if the chain has another page size; NOT_FOUND if it has a hole; FORMAT if it is damaged
 */
export async function loadReplicaState(
  replica: Replica,
  pageSize: number,
  sums: PageSums,
  signal?: AbortSignal,
  onProgress?: (progress: LoadProgress) => void,
): Promise<ReplicaState> {
  const files = await replica.list();
  if (files.length === 0) return { txid: 0n, timestampMs: 0 };
  const plan = planRestore(files, { kind: 'newest' });
  let before = 0;
  for (const file of plan.files) {
    signal?.throwIfAborted();
    await recordFile(replica, file, pageSize, sums);
    before += file.size;
    onProgress?.({ bytes: before, totalBytes: plan.bytes });
  }
  return { txid: plan.txid, timestampMs: plan.timestampMs ?? 0 };
}

async function recordFile(
  replica: Replica,
  file: LtxFileInfo,
  pageSize: number,
  sums: PageSums,
): Promise<void> {
  let commit = 0;
  await decodeLtx(ltxPath(file), replica.read(file), {
    header: (header) => {
      if (header.pageSize !== pageSize) {
        throw new JetliteError(
          'DATABASE',
          `the database has pages of ${pageSize} bytes, the chain in ${replica.url} pages of ${header.pageSize}`,
          { hint: 'A chain of LTX files has one page size: use a new replica path for this database.' },
        );
      }
      commit = header.commit;
      if (commit < sums.pageCount) sums.pageCount = commit;
    },
    page: (pgno, page) => sums.record(pgno, page, 0, pageSize),
  });
  sums.pageCount = commit;
}
