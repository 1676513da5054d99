/**
 * Distrust: whether a replica still leads to what it acknowledged, told from metadata and from what reading showed.
 *
 * 1. Missing without a trace, or damaged: lost, whether anything still needs it or not. Somebody should know.
 * 2. Removed, or gone where the home cannot tell: merging and retention do that. It is a loss only if the files that are
 *    left, without the damaged ones, do not lead to the newest acknowledged state any more.
 * 3. A file of level 1 or above may be replaced by whoever merges. One of level 0 never is, but by another writer.
 */

import { formatTxid } from '../../ltx/header.js';
import { ltxPath, versionKey } from '../../replica/names.js';
import type { AuditFindings, FileFlaw, LtxFileInfo, Replica } from '../../replica/replica.js';
import { reachableStates } from '../plan.js';

export interface Judgement {
  /** All files that are not damaged. */
  readonly sound: readonly LtxFileInfo[];
  /** What is lost. */
  readonly lost: readonly FileFlaw[];
  /** Files of level 0 under whose names another writer put something else. */
  readonly foreign: readonly FileFlaw[];
  /** The newest state that the sound files lead to; 0 if to none. */
  readonly newest: bigint;
  /** Why they do not lead to all that was acknowledged; undefined if they do. */
  readonly broken: string | undefined;
}

/**
 * Asks the replica's home. `remembered` are files it once had, the last time at `seenMs`; `acknowledged` is the highest
 * TXID that it must have; `damaged` are files (by versionKey) that could not be read.
 * Undefined if the home cannot tell. Throws REPLICA.
 */
export async function auditReplica(
  replica: Replica,
  remembered: readonly LtxFileInfo[] = [],
  acknowledged = 0n,
  seenMs = Date.now(),
  damaged: ReadonlySet<string> = new Set(),
): Promise<Judgement | undefined> {
  const findings = await replica.audit?.(remembered, seenMs);
  if (findings === undefined) return undefined;
  const { files, flaws } = findings;
  const unread = files.filter(
    (file) => damaged.has(versionKey(file)) && !flaws.some((flaw) => flaw.file === file),
  );
  const message = 'its content cannot be read as it was put';
  const read: FileFlaw[] = unread.map((file) => ({ file, kind: 'damaged', message }));
  return judge({ files, flaws: [...flaws, ...read] }, acknowledged);
}

/** See invariants 1 to 3. */
export function judge({ files, flaws }: AuditFindings, acknowledged: bigint): Judgement {
  const damaged = new Set<string>();
  for (const { file, kind } of flaws) if (kind === 'damaged') damaged.add(ltxPath(file));
  const sound = files.filter((file) => !damaged.has(ltxPath(file)));
  const { newest, broken } = reach(sound, files, acknowledged);
  return {
    sound,
    lost: flaws.filter(({ file, kind }) => {
      if (kind === 'missing' || kind === 'damaged') return true;
      return broken !== undefined && kind !== 'replaced' && file.maxTxid > newest;
    }),
    foreign: flaws.filter(({ file, kind }) => kind === 'replaced' && file.level === 0),
    newest,
    broken,
  };
}

/** What is lost and what is done about it, in a sentence. Either there are lost files, or they are why something is broken. */
export function describeLoss(lost: readonly FileFlaw[], broken: string | undefined): string {
  const [first] = lost;
  const one = first === undefined ? '' : `${ltxPath(first.file)} (${first.message})`;
  const what = lost.length > 1 ? `${lost.length} files, the first of them ${one}` : one || 'files';
  if (broken === undefined)
    return `has lost ${what}; the others lead to the newest state, and what is still kept here of the lost is put again`;
  return `has lost ${what}: ${broken}; what is still kept here is put again, or else the whole database`;
}

function reach(
  sound: readonly LtxFileInfo[],
  files: readonly LtxFileInfo[],
  acknowledged: bigint,
): Pick<Judgement, 'newest' | 'broken'> {
  let wanted = acknowledged;
  for (const { maxTxid } of files) if (maxTxid > wanted) wanted = maxTxid;
  if (wanted === 0n) return { newest: 0n, broken: undefined };
  const newest = reachableStates(sound).at(-1)?.txid ?? 0n;
  if (newest >= wanted) return { newest, broken: undefined };
  const found = newest === 0n ? 'to no state' : `to TXID ${formatTxid(newest)}`;
  return {
    newest,
    broken: `its files lead ${found}, expected TXID ${formatTxid(wanted)}`,
  };
}
