/**
 * What a replica holds, as far as whoever goes on with its chain must know it: where the chain ends, and the page sums of
 * that state. What an earlier run left in the state folder saves reading it all; it is used only where the replica's
 * own files show that it belongs to them.
 */

import type { Capture } from '../../capture/capture.js';
import type { ResumePoint, ResumeState, SumsOrigin } from '../../capture/resume-state.js';
import { FormatError, JetliteError, throwIfAborted } from '../../errors.js';
import { formatTxid } from '../../ltx/header.js';
import { ltxPath } from '../../replica/names.js';
import type { LtxFileInfo, Replica } from '../../replica/replica.js';
import { readTrailer } from '../rebuild/trailer.js';
import { readSnapshotSums } from '../tidy/snapshot-sums.js';
import { readAcknowledged } from './acknowledged.js';
import { auditReplica } from './audit.js';
import { putWhatLitestreamKept, type TakeOverOptions } from './litestream-folder.js';
import { BrokenChain, recordContent, recordSound } from './record-chain.js';
import type { Spool } from './spool.js';

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
  /**
   * Why nothing in the replica can be gone on with, in words: it lost something. `txid` is then the highest number that
   * it ever gave, and the next batch holds the whole database.
   */
  readonly lost: string | undefined;
}

const LAST_TXID = 2n ** 64n - 1n;
/** Listings that may come to nothing because files vanish. */
const MAX_LOOKS = 5;

export interface LoadOptions extends TakeOverOptions {
  /** What an earlier run could not put. */
  readonly spool?: Spool | undefined;
  readonly onProgress?: (progress: { readonly bytes: number; readonly totalBytes: number }) => void;
  /** Nobody asks the replica later what it has lost: it is asked now. */
  readonly auditsNow?: boolean | undefined;
}

/**
 * Prepares `capture`, which has not polled yet, to go on with the replica's chain; what Litestream left unfinished is
 * finished first. A chain that is damaged, contradicts itself, has a hole or ends before what was once acknowledged is no
 * error: the replica gets the whole database anew.
 * @throws JetliteError DATABASE if the chain has another page size, CONFLICT if it leaves no TXID; and what putWhatLitestreamKept throws
 */
export async function goOnWith(
  replica: Replica,
  capture: Capture,
  state: ResumeState,
  options: LoadOptions = {},
): Promise<ReplicaState> {
  await putWhatLitestreamKept(replica, capture.files.path, options);
  for (let looks = 1; ; looks++) {
    // Read first: what another job of the same folder puts while we list is no loss.
    const acknowledged = readAcknowledged(state.folder);
    const files = await replica.list();
    expectFollowable(files, acknowledged, replica.url, state.folder);
    try {
      return await goOnFrom(files, acknowledged, replica, capture, state, options);
    } catch (error) {
      if (!(error instanceof JetliteError) || error.code !== 'NOT_FOUND') throw error;
      // A file that was merged or retired while it was read is in the next listing no more.
      if (!(error instanceof BrokenChain) && looks < MAX_LOOKS) continue;
      return beginAnew(files, acknowledged, capture, error.message, options.spool);
    }
  }
}

/** Throws CONFLICT where a file, or the memory of one, has the last number there is: nothing can be put above it. */
function expectFollowable(
  files: readonly LtxFileInfo[],
  acknowledged: bigint,
  url: string,
  folder: string,
): void {
  const last = files.find(({ maxTxid }) => maxTxid === LAST_TXID);
  if (last !== undefined) {
    throw new JetliteError('CONFLICT', `${url}: no TXID is left above ${ltxPath(last)}`, {
      hint: 'No program counts that far: if the file was put there by mistake, take it away; else name a new replica.',
    });
  }
  if (acknowledged !== LAST_TXID) return;
  throw new JetliteError(
    'CONFLICT',
    `${url}: no TXID is left above ${formatTxid(acknowledged)}, which ${folder} remembers`,
    { hint: 'Remove that folder: only memory is in it, and what waits there is in the database.' },
  );
}

/** Above every number that was ever given, with the whole database. */
async function beginAnew(
  files: readonly LtxFileInfo[],
  acknowledged: bigint,
  capture: Capture,
  why: string,
  spool: Spool | undefined,
): Promise<ReplicaState> {
  let txid = acknowledged;
  let timestampMs = 0;
  for (const file of files) {
    if (file.maxTxid > txid) txid = file.maxTxid;
    timestampMs = Math.max(timestampMs, file.timestampMs);
  }
  await spool?.clear();
  capture.takeWhole(why);
  // There is no state to compare the database with.
  const unknown = { fileChecksum: 0n, resumed: false, remembered: true, pageCount: 0 };
  return { ...unknown, txid, timestampMs, spooledTxid: txid, lost: why };
}

async function goOnFrom(
  files: readonly LtxFileInfo[],
  acknowledged: bigint,
  replica: Replica,
  capture: Capture,
  state: ResumeState,
  options: LoadOptions,
): Promise<ReplicaState> {
  const found = await goOnFromReplica(files, replica, capture, state, options);
  if (options.auditsNow && found.txid > 0n) {
    const judgement = await auditReplica(replica);
    if (judgement?.broken !== undefined) throw new BrokenChain(judgement.broken);
  }
  if (found.spooledTxid >= acknowledged) {
    if (found.txid < acknowledged) {
      const [first, last] = [found.txid + 1n, acknowledged].map(formatTxid);
      const message = `${replica.url} has lost TXIDs ${first} to ${last}, which it had acknowledged: they are put again`;
      options.onEvent?.({ type: 'state', level: 'warn', message });
    }
    return found;
  }
  await putAgain(replica, found, options);
  const reach = found.txid === 0n ? 'nothing' : `TXID ${formatTxid(found.txid)}`;
  throw new BrokenChain(`TXID ${formatTxid(acknowledged)} was acknowledged, found ${reach}`);
}

/** What the spool still has behind the replica's newest file, though not all of it: so much can be restored again. */
async function putAgain(
  replica: Replica,
  { txid, spooledTxid }: ReplicaState,
  { spool, onEvent, signal }: LoadOptions,
): Promise<void> {
  let last = txid;
  while (last < spooledTxid) {
    const next = last + 1n;
    const file = await spool?.read(next);
    if (file === undefined) break;
    const target = { level: 0, minTxid: next, maxTxid: next, timestampMs: file.timestampMs };
    await replica.write(target, file.content, signal);
    last = next;
  }
  if (last === txid) return;
  const [first, end] = [txid + 1n, last].map(formatTxid);
  const message = `${replica.url} has lost TXIDs from ${first} on: those up to ${end} were put again`;
  onEvent?.({ type: 'state', level: 'warn', message });
}

async function goOnFromReplica(
  files: readonly LtxFileInfo[],
  replica: Replica,
  capture: Capture,
  state: ResumeState,
  options: LoadOptions,
): Promise<ReplicaState> {
  if (files.length === 0) {
    const empty = { txid: 0n, timestampMs: 0, fileChecksum: 0n, remembered: false };
    return recordSpooled(empty, undefined, capture, options);
  }
  const intents = state.readPoints();
  const newest = files.reduce((a, b) => (b.maxTxid > a.maxTxid ? b : a));
  const fileChecksum = (await soundTrailer(replica, newest)) ?? 0n;
  const ours =
    newest.level === 0
      ? intents.find((intent) => intent.txid === newest.maxTxid && intent.fileChecksum === fileChecksum)
      : undefined;
  const known = await loadSums(replica, files, capture, state);
  await recordSound(replica, files, known?.txid ?? 0n, capture, options);
  const remembered = known?.own === true || ours !== undefined;
  const { maxTxid: txid, timestampMs } = newest;
  const found = { txid, timestampMs, fileChecksum, remembered };
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
    const { lastTxid, forgotten } = await spool.takeUp(found.txid, found.fileChecksum, point !== undefined);
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
      await recordContent(ltxPath(name), file.content(), spool.folder, capture);
      last = { spooledTxid: txid, timestampMs: file.timestampMs, point: file.point };
    }
  }
  if (last.point !== undefined) capture.resume(last.point);
  const { spooledTxid, timestampMs } = last;
  const resumed = last.point !== undefined;
  const remembered = found.remembered || spooledTxid > found.txid;
  return {
    ...found,
    spooledTxid,
    timestampMs,
    resumed,
    remembered,
    pageCount: capture.sums.pageCount,
    lost: undefined,
  };
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
  return file !== undefined && (await soundTrailer(replica, file)) === origin.fileChecksum;
}

/** Of a damaged file it is not known. */
async function soundTrailer(replica: Replica, file: LtxFileInfo): Promise<bigint | undefined> {
  try {
    return await readTrailer(replica, file);
  } catch (error) {
    if (error instanceof FormatError) return undefined;
    throw error;
  }
}
