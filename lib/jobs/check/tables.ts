/**
 * Do two databases seem to be one and the same? Vacuumed, rebuilt and restored databases have other pages than before, so
 * what tells is the names of tables: only where both have some, and none in common, are they held for two.
 */

import { JetliteError } from '../../errors.js';
import type { Replica } from '../../replica/replica.js';
import { readTableNames } from '../../sqlite/schema.js';
import { ReplicaPages } from '../rebuild/replica-pages.js';

const NAMES_SHOWN = 3;

/** The tables of the state of `txid`; fewer or none where its files are gone by now. Throws REPLICA, FORMAT. */
export function tablesInReplica(replica: Replica, txid: bigint, pageSize: number): Promise<Set<string>> {
  const pages = new ReplicaPages(replica, txid);
  return readTableNames(async (pgno) => {
    const page = new Uint8Array(pageSize);
    try {
      return (await pages.read(pgno, page)) ? page : undefined;
    } catch (error) {
      // Merged or retired meanwhile: then nothing can be said.
      if (error instanceof JetliteError && error.code === 'NOT_FOUND') return undefined;
      throw error;
    }
  });
}

/** Undefined if the databases may be one; else the tables of each, in words. */
export function nothingInCommon(
  here: ReadonlySet<string>,
  there: ReadonlySet<string>,
): { readonly here: string; readonly there: string } | undefined {
  const [ours, theirs] = [here, there].map((names) => [...names].filter(isOwnTable));
  if (ours.length === 0 || theirs.length === 0 || ours.some((name) => there.has(name))) return undefined;
  return { here: listed(ours), there: listed(theirs) };
}

/** Litestream's own tables are in every database that it replicated. */
function isOwnTable(name: string): boolean {
  return !name.startsWith('_litestream_');
}

function listed(names: readonly string[]): string {
  const shown = names.slice(0, NAMES_SHOWN).map((name) => JSON.stringify(name));
  return names.length > NAMES_SHOWN ? `${shown.join(', ')}, …` : shown.join(' and ');
}
