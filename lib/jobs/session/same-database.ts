/**
 * Is this the database that the replica is of? Asked when a writer that remembers nothing of a replica is about to go on
 * with its chain: a mistyped name would make the states of two databases one history.
 *
 * A replica does not say whose it is, and databases are vacuumed, restored, moved and made anew under their name. So
 * what counts is content, and only where nothing at all agrees is the writer refused: (1) hardly a page is the one that
 * stands under its number in the replica, and (2) both have tables, but none of the same name. A vacuumed or rebuilt
 * database fails the first and keeps the second; it is gone on with, and where it is large somebody is told.
 */

import type { Batch } from '../../capture/capture.js';
import { JetliteError } from '../../errors.js';
import { formatTxid } from '../../ltx/header.js';
import type { Replica } from '../../replica/replica.js';
import { readTableNames } from '../../sqlite/schema.js';
import { nothingInCommon, tablesInReplica } from '../check/tables.js';

/** So many pages, or one in so many, may agree by accident: those of empty tables do. */
const ACCIDENTAL = 4;
const ONE_IN = 50;
/** Small databases change all their pages with a commit or two: nothing is said of them. */
const LARGE = 64;

export interface Newcomer {
  readonly replica: Replica;
  /** Path of the database, for messages. */
  readonly database: string;
  /** The state of the replica: its TXID, and its size in pages. */
  readonly txid: bigint;
  readonly pageCount: number;
}

/**
 * Looks at the first batch, which is all that differs between the replica's state and the database.
 * @returns a warning, undefined if there is nothing to say
 * @throws JetliteError DATABASE if replica and database have nothing in common; what reading the replica throws
 */
export async function expectSameDatabase(newcomer: Newcomer, batch: Batch): Promise<string | undefined> {
  const { replica, database, txid, pageCount } = newcomer;
  const shared = Math.min(pageCount, batch.pageCount);
  const grown = Math.max(0, batch.pageCount - pageCount);
  const equal = shared - (batch.pages.size - grown);
  if (equal > Math.max(ACCIDENTAL, shared / ONE_IN)) return undefined;

  const there = await tablesInReplica(replica, txid, batch.pageSize);
  const here = await readTableNames(async (pgno) => {
    if (!batch.pages.has(pgno)) return undefined;
    const page = new Uint8Array(batch.pageSize);
    batch.pages.read(pgno, page, 0);
    return page;
  });
  const tables = nothingInCommon(here, there);
  if (tables !== undefined) {
    throw new JetliteError(
      'DATABASE',
      `${replica.url} seems to be the replica of another database than ${database}: expected a page or a table that ` +
        `both have, found the tables ${tables.here} here and ${tables.there} there`,
      {
        hint: 'Name another folder, bucket or prefix; or insist with --allow-other-database, and it goes on with this one.',
      },
    );
  }
  if (shared < LARGE) return undefined;
  return (
    `hardly a page of ${database} is as in ${replica.url}: all ${batch.pages.size} go there. If that is the replica of ` +
    `another database, stop, and restore it with --txid ${formatTxid(txid)}`
  );
}
