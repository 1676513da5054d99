/**
 * From the state that a live copy stands at to the newest one of its replica, as one commit.
 *
 * 1. The files of the plan are read from the last to the first, and of each page only the newest is taken: one commit
 *    holds no page twice and none beyond its size.
 * 2. A file's pages are unproven until its end, and the commit is finished only when all files have ended: a damaged file
 *    leaves the copy where it stood.
 * 3. A state is only gone on from if the replica does not show that its history is another one by now.
 */

import type { LiveCopy } from '../copy/live-copy.js';
import { ConflictError, FormatError, throwIfAborted } from '../errors.js';
import { decodeLtx } from '../ltx/decoder.js';
import { formatTxid } from '../ltx/header.js';
import { ltxPath, SNAPSHOT_LEVEL } from '../replica/names.js';
import type { LtxFileInfo, Replica } from '../replica/replica.js';
import type { RestorePlan } from './plan.js';
import { readAhead } from './rebuild/read-ahead.js';
import { StepChecks } from './rebuild/state-check.js';

const ANEW = 'The copy stays as it is. To follow what is there now, restore it anew with --force.';

/**
 * Throws CONFLICT if the files are of another history than the one that led to the state the copy stands at: the replica
 * was begun anew, or has lost what the copy has.
 */
export function expectSameHistory(
  files: readonly LtxFileInfo[],
  copy: Pick<LiveCopy, 'txid' | 'timestampMs'>,
): void {
  if (files.length === 0) return;
  const { txid, timestampMs } = copy;
  // Snapshots may carry the time at which they were made.
  const changes = files.filter((file) => file.level < SNAPSHOT_LEVEL && file.maxTxid <= txid);
  const newest = files.reduce((highest, file) => (file.maxTxid > highest ? file.maxTxid : highest), 0n);
  const own = changes.filter((file) => file.maxTxid === txid);
  if (newest < txid) {
    const what = `the replica ends at TXID ${formatTxid(newest)}, the copy stands at ${formatTxid(txid)}`;
    throw new ConflictError(`${what}: the replica was begun anew or has lost its newest files`, {
      hint: ANEW,
    });
  }
  const isOther =
    own.length > 0
      ? own.every((file) => file.timestampMs !== timestampMs)
      : changes.length > 0 && changes.every((file) => file.timestampMs > timestampMs);
  if (!isOther) return;
  throw new ConflictError(
    `the replica was begun anew: its TXID ${formatTxid(txid)} is not the one that the copy stands at`,
    { hint: ANEW },
  );
}

/**
 * Whether a file ends at the very state that the copy stands at. Where none does any more, the replica may have been begun
 * anew without showing it (merged files hide where they began): only a whole database is right for any history then.
 */
export function isOnRecord(
  files: readonly LtxFileInfo[],
  copy: Pick<LiveCopy, 'txid' | 'timestampMs'>,
): boolean {
  return files.some(({ maxTxid, timestampMs }) => maxTxid === copy.txid && timestampMs === copy.timestampMs);
}

export interface Applied {
  readonly pages: number;
  readonly bytes: number;
}

/**
 * Makes the plan's last state that of the copy. Throws NOT_FOUND if a file has gone meanwhile, FORMAT if one is damaged or
 * of another page size, REPLICA, ABORTED, and what the file system refused; the copy then stands where it stood.
 */
export async function applyPlan(
  copy: LiveCopy,
  plan: RestorePlan,
  replica: Replica,
  parallelism: number,
  signal?: AbortSignal,
): Promise<Applied> {
  const batch = copy.begin();
  const checks = new StepChecks();
  let seen: Uint8Array | undefined;
  let pageCount = 0;
  let timestampMs = 0;
  let pages = 0;
  for await (const { file, bytes } of readAhead(replica, [...plan.files].reverse(), parallelism)) {
    await decodeLtx(ltxPath(file), bytes, {
      header: (header) => {
        throwIfAborted(signal, 'following');
        if (header.minTxid !== file.minTxid || header.maxTxid !== file.maxTxid) {
          const found = `${formatTxid(header.minTxid)} to ${formatTxid(header.maxTxid)}`;
          throw new FormatError(
            ltxPath(file),
            `expected the TXIDs of its name, found ${found} in its header`,
          );
        }
        if (header.pageSize !== copy.pageSize) {
          const found = `found ${header.pageSize} in ${ltxPath(file)}`;
          throw new ConflictError(`expected pages of ${copy.pageSize} bytes as in the copy, ${found}`, {
            hint: ANEW,
          });
        }
        checks.begin(file, header);
        if (seen !== undefined) return;
        pageCount = header.commit;
        timestampMs = header.timestampMs;
        seen = new Uint8Array((pageCount >>> 3) + 1);
      },
      page: (pgno, page) => {
        checks.page(file, pgno, page);
        const bit = 1 << (pgno & 7);
        if (pgno > pageCount || (seen![pgno >>> 3] & bit) !== 0) return;
        seen![pgno >>> 3] |= bit;
        batch.add(pgno, page);
        pages++;
      },
    });
  }
  const isWhole = plan.files[0].minTxid === 1n;
  checks.expectSteps(
    plan.files,
    isWhole ? { pageCount: 0 } : { pageCount: copy.pageCount, pageOne: copy.pageOne() },
  );
  batch.finish({ txid: plan.txid, timestampMs, pageCount });
  return { pages, bytes: plan.bytes };
}
