/**
 * Is the history in the replica still the one that led to the state a copy stands at?
 *
 * 1. A file that ends at the copy's TXID and carries its time says so: what comes behind it leads on from the copy.
 * 2. A replica that ends before the copy has lost what it had acknowledged: a server whose store was rolled back. Who
 *    writes it heals it, and never gives a number twice; so the copy, which has more, is served on until then.
 * 3. Where no file ends at the copy's state any more (merged, retired, lost, or another one ends there), only a whole
 *    database of a later TXID is right, whatever became of the history: readers go forward in one step.
 * 4. A replica whose changes are all later than the copy's state, although their numbers are not, was begun anew; one that
 *    has no table in common with the copy is of another database. Nothing in those is for this copy.
 */

import type { LiveCopy } from '../../copy/live-copy.js';
import { ConflictError, JetliteError } from '../../errors.js';
import { formatTxid } from '../../ltx/header.js';
import { SNAPSHOT_LEVEL } from '../../replica/names.js';
import type { LtxFileInfo, Replica } from '../../replica/replica.js';
import { readTableNames } from '../../sqlite/schema.js';
import { nothingInCommon, tablesInReplica } from '../check/tables.js';
import { planRestore, type RestorePlan } from '../plan.js';
import { isSound } from '../rebuild/damage.js';
import { hasCode } from '../session/attempts.js';

export const ANEW = 'The copy stays as it is. To follow what is there now, restore it anew with --force.';

/** `continues`: files lead on from the copy. `whole`: only a whole database does. `behind`: there is nothing later yet. */
export type Standing = 'continues' | 'whole' | 'behind';

/** How the files of a replica, all that there are, stand to a copy's state. Throws CONFLICT if it was begun anew. */
export function standingOf(
  files: readonly LtxFileInfo[],
  { txid, timestampMs }: Pick<LiveCopy, 'txid' | 'timestampMs'>,
): Standing {
  // Snapshots may carry the time at which they were made.
  const changes = files.filter((file) => file.level < SNAPSHOT_LEVEL && file.maxTxid <= txid);
  if (changes.length > 0 && changes.every((file) => file.timestampMs > timestampMs)) {
    throw new ConflictError(
      `the replica was begun anew: its TXID ${formatTxid(txid)} is not the one that the copy stands at`,
      { hint: ANEW },
    );
  }
  if (files.some((file) => file.maxTxid === txid && file.timestampMs === timestampMs)) return 'continues';
  const isOther = changes.some(({ maxTxid }) => maxTxid === txid);
  const isLater = files.some(({ maxTxid }) => (isOther ? maxTxid > txid : maxTxid >= txid));
  return isLater ? 'whole' : 'behind';
}

/** What is said, with the same words however far it has healed, while a replica is behind its copy. */
export function behind(replica: Replica, { txid }: Pick<LiveCopy, 'txid'>): JetliteError {
  return new JetliteError(
    'NOT_FOUND',
    `${replica.url} does not hold TXID ${formatTxid(txid)} any more, nor a later one: it has lost its newest files`,
    { hint: 'Whoever writes the replica heals it.' },
  );
}

/**
 * Throws CONFLICT if the state that `files`, all of a replica's, lead to is of another database than the copy. Says nothing
 * where they are damaged: reading them will.
 */
export async function expectSameDatabase(
  replica: Replica,
  files: readonly LtxFileInfo[],
  copy: Pick<LiveCopy, 'page' | 'pageSize' | 'path'>,
): Promise<void> {
  let plan: RestorePlan;
  let there: ReadonlySet<string>;
  try {
    plan = planRestore(files, { kind: 'newest' });
    there = await tablesInReplica(replica, plan.txid, copy.pageSize);
  } catch (error) {
    if (hasCode(error, 'FORMAT', 'NOT_FOUND')) return;
    throw error;
  }
  const here = await readTableNames(async (pgno) => copy.page(pgno));
  const tables = nothingInCommon(here, there);
  if (tables === undefined) return;
  // No checksum covers single pages.
  for (const file of plan.files) if (!(await isSound(replica, file))) return;
  throw new ConflictError(
    `${replica.url} is the replica of another database by now: expected a table of the copy ${copy.path}, ` +
      `found the tables ${tables.here} here and ${tables.there} there`,
    { hint: ANEW },
  );
}
