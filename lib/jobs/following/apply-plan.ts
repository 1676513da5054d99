/**
 * From the state that a live copy stands at to the newest one of its replica, as one commit.
 *
 * 1. The files of the plan are read from the last to the first, and of each page only the newest is taken: one commit
 *    holds no page twice and none beyond its size.
 * 2. A file's pages are unproven until its end, and the commit is finished only when all files have ended: a damaged file
 *    leaves the copy where it stood.
 */

import type { LiveCopy } from '../../copy/live-copy.js';
import { ConflictError, FormatError, throwIfAborted } from '../../errors.js';
import { decodeLtx } from '../../ltx/decoder.js';
import { formatTxid } from '../../ltx/header.js';
import { ltxPath } from '../../replica/names.js';
import type { Replica } from '../../replica/replica.js';
import type { RestorePlan } from '../plan.js';
import { capturedMs } from '../rebuild/captured.js';
import { readAhead } from '../rebuild/read-ahead.js';
import { StepChecks } from '../rebuild/state-check.js';
import { ANEW } from './history.js';

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
  const newestFirst = [...plan.files].reverse();
  for await (const { file, bytes } of readAhead(replica, newestFirst, parallelism, signal, 'following')) {
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
        timestampMs = capturedMs(file, header);
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
    isWhole ? { pageCount: 0 } : { pageCount: copy.pageCount, pageOne: copy.page(1) },
  );
  batch.finish({ txid: plan.txid, timestampMs, pageCount });
  return { pages, bytes: plan.bytes };
}
