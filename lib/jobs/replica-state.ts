/**
 * What a replica holds, as far as whoever goes on with its chain must know it: where the chain ends, and the page sums of
 * that state. What an earlier run left in the state folder saves reading it all; it is used only where the replica's
 * own files show that it belongs to them.
 */

import type { Capture } from '../capture/capture.js';
import type { PageSums } from '../capture/page-sums.js';
import type { Intent, ResumeState, SumsOrigin } from '../capture/resume-state.js';
import { JetliteError, throwIfAborted } from '../errors.js';
import { decodeLtx } from '../ltx/decoder.js';
import { ltxPath } from '../replica/names.js';
import type { LtxFileInfo, Replica } from '../replica/replica.js';
import { putWhatLitestreamKept, type TakeOverOptions } from './litestream-folder.js';
import { planRestore } from './plan.js';
import { readSnapshotSums } from './snapshot-sums.js';
import { readTrailer } from './trailer.js';

export interface ReplicaState {
  /** TXID of the newest state; 0 if the replica is empty. */
  readonly txid: bigint;
  /** Time of the newest file, ms since the epoch; 0 if the replica is empty. */
  readonly timestampMs: number;
  /** Whether capture goes on from where an earlier run stood, without an image. */
  readonly resumed: boolean;
}

export interface LoadOptions extends TakeOverOptions {
  readonly onProgress?: (progress: { readonly bytes: number; readonly totalBytes: number }) => void;
}

/**
 * Prepares `capture`, which has not polled yet, to go on with the replica's chain; what Litestream left unfinished is
 * finished first.
 * @throws JetliteError DATABASE if the chain has another page size; NOT_FOUND if it has a hole; FORMAT if it is damaged;
 * and what putWhatLitestreamKept throws
 */
export async function goOnWith(
  replica: Replica,
  capture: Capture,
  state: ResumeState,
  options: LoadOptions = {},
): Promise<ReplicaState> {
  await putWhatLitestreamKept(replica, capture.files.path, options);
  const files = await replica.list();
  if (files.length === 0) return { txid: 0n, timestampMs: 0, resumed: false };
  const { pageSize, sums } = capture;
  const intents = state.readPoints();
  const newest = files.reduce((a, b) => (b.maxTxid > a.maxTxid ? b : a));
  const ours = await findOurs(replica, newest, intents);
  const known = await loadSums(replica, files, capture, state);
  let plan = planRestore(files, { kind: 'newest' });
  if (known !== undefined) {
    try {
      plan = planRestore(files, { kind: 'newest' }, known);
    } catch (error) {
      if (!(error instanceof JetliteError && error.code === 'NOT_FOUND')) throw error;
      sums.clear();
    }
  }
  await recordPlan(replica, plan, pageSize, sums, options);
  if (ours !== undefined) capture.resume(ours.point);
  return { txid: plan.txid, timestampMs: newest.timestampMs, resumed: ours !== undefined };
}

/** The intent of an earlier run that became the replica's newest file, if one did. */
async function findOurs(
  replica: Replica,
  newest: LtxFileInfo,
  intents: readonly Intent[],
): Promise<Intent | undefined> {
  if (newest.level !== 0) return undefined;
  const candidates = intents.filter((intent) => intent.txid === newest.maxTxid);
  if (candidates.length === 0) return undefined;
  const checksum = await readTrailer(replica, newest);
  return candidates.find((intent) => intent.fileChecksum === checksum);
}

/**
 * Loads the page sums of a state of the replica: those kept on this host, else those beside a snapshot.
 * @returns the TXID of that state; undefined, and the sums empty, if none are known
 */
async function loadSums(
  replica: Replica,
  files: readonly LtxFileInfo[],
  { sums, pageSize }: Capture,
  state: ResumeState,
): Promise<bigint | undefined> {
  const origin = state.readSums(sums, pageSize);
  // Also when the newest file is ours: the sums may be those of a chain that stood here before.
  if (origin !== undefined && (await isOrigin(replica, files, origin))) return origin.txid;
  sums.clear();
  return readSnapshotSums(replica, files, sums, pageSize);
}

async function isOrigin(
  replica: Replica,
  files: readonly LtxFileInfo[],
  origin: SumsOrigin,
): Promise<boolean> {
  const file = files.find(({ level, maxTxid }) => level === 0 && maxTxid === origin.txid);
  return file !== undefined && (await readTrailer(replica, file)) === origin.fileChecksum;
}

async function recordPlan(
  replica: Replica,
  plan: { readonly files: readonly LtxFileInfo[]; readonly bytes: number },
  pageSize: number,
  sums: PageSums,
  options: LoadOptions,
): Promise<void> {
  let bytes = 0;
  for (const file of plan.files) {
    throwIfAborted(options.signal, 'reading the replica');
    await recordFile(replica, file, pageSize, sums);
    bytes += file.size;
    options.onProgress?.({ bytes, totalBytes: plan.bytes });
  }
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
