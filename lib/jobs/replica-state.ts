/**
 * What a replica holds, as far as whoever goes on with its chain must know it: where the chain ends, and the page sums of
 * that state. What an earlier run left in the state folder saves reading it all; it is used only where the replica's
 * own files show that it belongs to them.
 */

import type { Capture } from '../capture/capture.js';
import type { PageSums } from '../capture/page-sums.js';
import type { ResumePoint, ResumeState, SumsOrigin } from '../capture/resume-state.js';
import { JetliteError, throwIfAborted } from '../errors.js';
import { decodeLtx } from '../ltx/decoder.js';
import { formatTxid } from '../ltx/header.js';
import { ltxPath } from '../replica/names.js';
import type { LtxFileInfo, Replica } from '../replica/replica.js';
import { putWhatLitestreamKept, type TakeOverOptions } from './litestream-folder.js';
import { planRestore } from './plan.js';
import { readSnapshotSums } from './snapshot-sums.js';
import type { Spool } from './spool.js';
import { readTrailer } from './trailer.js';

export interface ReplicaState {
  /** TXID of the newest state; 0 if the replica is empty. */
  readonly txid: bigint;
  /** Time of the newest file, ms since the epoch; 0 if the replica is empty. */
  readonly timestampMs: number;
  /** The checksum in the trailer of the newest file; 0 if the replica is empty. */
  readonly fileChecksum: bigint;
  /** TXID of the newest file that waits in the spool to be put; `txid` if none does. The sums describe its state. */
  readonly spooledTxid: bigint;
  /** Whether capture goes on from where an earlier run stood, without an image. */
  readonly resumed: boolean;
  /** Whether an earlier run left something in the state folder that belongs to this chain. */
  readonly remembered: boolean;
  /** Size of the newest state in pages; 0 if the replica is empty. */
  readonly pageCount: number;
}

export interface LoadOptions extends TakeOverOptions {
  /** What an earlier run could not put. */
  readonly spool?: Spool | undefined;
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
  const { pageSize, sums } = capture;
  if (files.length === 0) {
    const empty = { txid: 0n, timestampMs: 0, fileChecksum: 0n, remembered: false };
    return recordSpooled(empty, undefined, capture, options);
  }
  const intents = state.readPoints();
  const newest = files.reduce((a, b) => (b.maxTxid > a.maxTxid ? b : a));
  const fileChecksum = (await readTrailer(replica, newest)) ?? 0n;
  const ours =
    newest.level === 0
      ? intents.find((intent) => intent.txid === newest.maxTxid && intent.fileChecksum === fileChecksum)
      : undefined;
  const known = await loadSums(replica, files, capture, state);
  let plan = planRestore(files, { kind: 'newest' });
  if (known !== undefined) {
    try {
      plan = planRestore(files, { kind: 'newest' }, known.txid);
    } catch (error) {
      if (!(error instanceof JetliteError && error.code === 'NOT_FOUND')) throw error;
      sums.clear();
    }
  }
  await recordPlan(replica, plan, pageSize, sums, options);
  const remembered = known?.own === true || ours !== undefined;
  const found = { txid: plan.txid, timestampMs: newest.timestampMs, fileChecksum, remembered };
  return recordSpooled(found, ours?.point, capture, options);
}

/** Goes on from the replica's state to that of the last file in the spool that follows it. */
async function recordSpooled(
  found: Pick<ReplicaState, 'txid' | 'timestampMs' | 'fileChecksum' | 'remembered'>,
  point: ResumePoint | undefined,
  capture: Capture,
  { spool, onEvent, signal }: LoadOptions,
): Promise<ReplicaState> {
  let last = { spooledTxid: found.txid, timestampMs: found.timestampMs, point };
  if (spool !== undefined) {
    const { lastTxid, forgotten } = await spool.takeUp(found.txid, found.fileChecksum);
    if (forgotten > 0n) {
      onEvent?.({
        type: 'state',
        level: 'warn',
        message: `${forgotten} files in ${spool.folder} do not follow what the replica holds: they are dropped, and the database is compared with it`,
      });
    }
    for (let txid = found.txid + 1n; txid <= lastTxid; txid++) {
      throwIfAborted(signal, 'reading the spool');
      const file = await spool.read(txid);
      if (file === undefined) throw await spoolDamaged(spool, txid);
      const name = { level: 0, minTxid: txid, maxTxid: txid };
      await recordContent(ltxPath(name), file.content(), spool.folder, capture.pageSize, capture.sums);
      last = { spooledTxid: txid, timestampMs: file.timestampMs, point: file.point };
    }
  }
  if (last.point !== undefined) capture.resume(last.point);
  const { spooledTxid, timestampMs } = last;
  const resumed = last.point !== undefined;
  const remembered = found.remembered || resumed;
  return { ...found, spooledTxid, timestampMs, resumed, remembered, pageCount: capture.sums.pageCount };
}

/** A file that was checked, or written by this process, is damaged or gone. What the spool holds is of no use then. */
export async function spoolDamaged(spool: Spool, txid: bigint): Promise<JetliteError> {
  await spool.clear();
  return new JetliteError('FORMAT', `TXID ${formatTxid(txid)} cannot be read any more in ${spool.folder}`, {
    hint: 'Start again: the database is compared with the replica then, and nothing of its content is lost.',
  });
}

/**
 * Loads the page sums of a state of the replica: those kept on this host, else those beside a snapshot.
 * @returns the TXID of that state and whether this host kept the sums; undefined, and the sums empty, if none are known
 */
async function loadSums(
  replica: Replica,
  files: readonly LtxFileInfo[],
  { sums, pageSize }: Capture,
  state: ResumeState,
): Promise<{ readonly txid: bigint; readonly own: boolean } | undefined> {
  const origin = state.readSums(sums, pageSize);
  // Also when the newest file is ours: the sums may be those of a chain that stood here before.
  if (origin !== undefined && (await isOrigin(replica, files, origin))) {
    return { txid: origin.txid, own: true };
  }
  sums.clear();
  const txid = await readSnapshotSums(replica, files, sums, pageSize);
  return txid === undefined ? undefined : { txid, own: false };
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
  await recordContent(ltxPath(file), replica.read(file), replica.url, pageSize, sums);
}

async function recordContent(
  name: string,
  content: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  where: string,
  pageSize: number,
  sums: PageSums,
): Promise<void> {
  let commit = 0;
  await decodeLtx(name, content, {
    header: (header) => {
      if (header.pageSize !== pageSize) {
        throw new JetliteError(
          'DATABASE',
          `the database has pages of ${pageSize} bytes, the chain in ${where} pages of ${header.pageSize}`,
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
