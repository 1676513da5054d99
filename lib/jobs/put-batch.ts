/**
 * A batch becomes an LTX file of a replica.
 *
 * Level-0 files carry WAL offset 32, size 0 and no salts: Litestream, should it take the replica over, then begins with
 * a snapshot of its own instead of trusting a place in a WAL that it has not seen.
 */

import type { Batch } from '../capture/capture.js';
import { LtxEncoder } from '../ltx/encoder.js';
import { LTX_FLAG_NO_CHECKSUM, type LtxHeader } from '../ltx/header.js';
import type { LtxFileInfo, Replica } from '../replica/replica.js';

const WAL_OFFSET = 32;

/** Writes `batch` as the level-0 file of `txid`; resolves when it is durable. */
export async function putBatch(
  replica: Replica,
  batch: Batch,
  txid: bigint,
  signal?: AbortSignal,
): Promise<LtxFileInfo> {
  const { timestampMs } = batch;
  return replica.write(
    { level: 0, minTxid: txid, maxTxid: txid, timestampMs },
    () => encodeBatch(batch, txid),
    signal,
  );
}

function* encodeBatch(batch: Batch, txid: bigint): Generator<Uint8Array> {
  const header: LtxHeader = {
    flags: LTX_FLAG_NO_CHECKSUM,
    pageSize: batch.pageSize,
    commit: batch.pageCount,
    minTxid: txid,
    maxTxid: txid,
    timestampMs: batch.timestampMs,
    preApplyChecksum: 0n,
    walOffset: WAL_OFFSET,
    walSize: 0,
    walSalt1: 0,
    walSalt2: 0,
    nodeId: 0n,
  };
  const encoder = new LtxEncoder(header);
  for (const { pgno, page } of batch.pages.pages()) {
    encoder.writePage(pgno, page);
    for (let block = encoder.take(); block !== undefined; block = encoder.take()) yield block;
  }
  yield encoder.finish();
}
