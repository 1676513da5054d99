/** A batch becomes an LTX file of a replica. */

import { setImmediate as turn } from 'node:timers/promises';
import type { Batch, Capture } from '../../capture/capture.js';
import { ImageSpoilt } from '../../capture/image.js';
import { ConflictError } from '../../errors.js';
import { LtxEncoder } from '../../ltx/encoder.js';
import { LTX_FLAG_NO_CHECKSUM, type LtxHeader } from '../../ltx/header.js';
import { SNAPSHOT_LEVEL } from '../../replica/names.js';
import type { ByteSource, LtxFileInfo, Replica } from '../../replica/replica.js';
import { OUR_WAL_OFFSET } from '../../replica/writer.js';
import { readTrailer, trailerChecksum } from '../rebuild/trailer.js';
import { encodeRuns } from './encode-pages.js';

/** Batches up to this size are encoded before they are put, so that their checksum is known by then. */
const WHOLE_BYTES = 4 * 1024 * 1024;

export interface PutOptions {
  readonly timestampMs: number;
  /**
   * Called once, with the checksum in the file's trailer: before the put and with the file's bytes where the batch is
   * small, else after it.
   */
  readonly onChecksum?: (fileChecksum: bigint, file?: readonly Uint8Array[]) => Promise<void>;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Writes `batch` as the level-0 file of `txid`; resolves when it is durable. One that holds the whole database becomes a
 * snapshot, too, so that nothing before it is needed.
 */
export async function putBatch(
  replica: Replica,
  batch: Batch,
  txid: bigint,
  options: PutOptions,
): Promise<LtxFileInfo> {
  const file = await putIncrement(replica, batch, txid, options);
  if (batch.whole && txid > 1n) {
    const { timestampMs, signal } = options;
    const target = { level: SNAPSHOT_LEVEL, minTxid: 1n, maxTxid: txid, timestampMs };
    const header = snapshotHeader(txid, batch.pageSize, batch.pageCount, timestampMs);
    await replica.write(target, () => encodePages(batch, header), signal);
  }
  return file;
}

async function putIncrement(
  replica: Replica,
  batch: Batch,
  txid: bigint,
  options: PutOptions,
): Promise<LtxFileInfo> {
  const { timestampMs, onChecksum, signal } = options;
  const target = { level: 0, minTxid: txid, maxTxid: txid, timestampMs };
  if (batch.pages.bytes <= WHOLE_BYTES) {
    const blocks: Uint8Array[] = [];
    for (const block of encodeBatch(batch, txid, timestampMs)) {
      // Compressing a full batch takes longer than a busy WAL may go unseen.
      if (blocks.length > 0) await turn();
      blocks.push(block);
    }
    const known = onChecksum?.(trailerChecksum(blocks[blocks.length - 1]), blocks);
    known?.catch(() => {}); // The source tells.
    const source: ByteSource = async function* () {
      yield* blocks;
      // The file is none before its end: so much of the way it may go meanwhile.
      await known;
    };
    return replica.write(target, source, signal);
  }
  let last: Uint8Array = new Uint8Array();
  const source: ByteSource = function* () {
    for (const block of encodeBatch(batch, txid, timestampMs)) {
      last = block;
      yield block;
    }
  };
  const file = await replica.write(target, source, signal);
  await onChecksum?.(trailerChecksum(last));
  return file;
}

/**
 * Writes the whole database as TXID 1, while it is being read and without a copy of it.
 * @returns undefined, and nothing was put, if a checkpoint or a writer spoilt the image: take one by polling then. `isLate`:
 * what stands there is of an earlier try that was given up, and not the image that `capture` took last
 */
export async function putStreamed(
  replica: Replica,
  capture: Capture,
  options: Omit<PutOptions, 'timestampMs'>,
): Promise<{ readonly file: LtxFileInfo; readonly pageCount: number; readonly isLate: boolean } | undefined> {
  const { onChecksum, signal } = options;
  const begunMs = Date.now();
  let pageCount = 0;
  let last: Uint8Array = new Uint8Array();
  let spoilt = false;
  const source: ByteSource = async function* () {
    try {
      const image = await capture.stream();
      pageCount = image.pageCount;
      last = yield* encodeRuns(headerOf(1n, capture.pageSize, pageCount, begunMs), image.runs);
    } catch (error) {
      spoilt = error instanceof ImageSpoilt;
      throw error;
    }
    yield last;
  };
  try {
    // The state it holds is that of the end of the reading: no moment before may lead to it.
    const target = { level: 0, minTxid: 1n, maxTxid: 1n, timestampMs: Date.now };
    const file = await replica.write(target, source, signal);
    await onChecksum?.(trailerChecksum(last));
    return { file, pageCount, isLate: false };
  } catch (error) {
    if (spoilt) return undefined;
    const file = error instanceof ConflictError ? await ownFirst(replica) : undefined;
    if (file === undefined) throw error;
    await onChecksum?.((await readTrailer(replica, file)) ?? 0n);
    return { file, pageCount, isLate: true };
  }
}

async function ownFirst(replica: Replica): Promise<LtxFileInfo | undefined> {
  return (await replica.list(0)).find((file) => file.maxTxid === 1n && replica.isOwn(file));
}

/** The bytes of the level-0 file of `txid`, block by block. */
export function encodeBatch(batch: Batch, txid: bigint, timestampMs: number): Generator<Uint8Array> {
  return encodePages(batch, headerOf(txid, batch.pageSize, batch.pageCount, timestampMs));
}

function* encodePages(batch: Batch, header: LtxHeader): Generator<Uint8Array> {
  const encoder = new LtxEncoder(header);
  for (const { pgno, page } of batch.pages.pages()) {
    encoder.writePage(pgno, page);
    for (let block = encoder.take(); block !== undefined; block = encoder.take()) yield block;
  }
  yield encoder.finish();
}

/** A snapshot names no place in a WAL. */
function snapshotHeader(txid: bigint, pageSize: number, commit: number, timestampMs: number): LtxHeader {
  return { ...headerOf(txid, pageSize, commit, timestampMs), minTxid: 1n, walOffset: 0 };
}

function headerOf(txid: bigint, pageSize: number, commit: number, timestampMs: number): LtxHeader {
  return {
    flags: LTX_FLAG_NO_CHECKSUM,
    pageSize,
    commit,
    minTxid: txid,
    maxTxid: txid,
    timestampMs,
    preApplyChecksum: 0n,
    walOffset: OUR_WAL_OFFSET,
    walSize: 0,
    walSalt1: 0,
    walSalt2: 0,
    nodeId: 0n,
  };
}
