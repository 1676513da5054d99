/**
 * A snapshot of one TXID, read from the live database while it is written: a file of level 9 that holds all of it, and its
 * page sums beside it.
 *
 * 1. It is begun only when the chain leads to its TXID: so it never stands for a state that no other file tells of. Its time
 *    is that of the file which does.
 * 2. What the live files do not have any more is read from the replica, page by page, as long as that is little. Whatever
 *    is taken, from wherever, has the sum that it had when it was captured (lib/capture/frozen-image.ts).
 */

import type { FrozenImage } from '../../capture/frozen-image.js';
import { ImageSpoilt } from '../../capture/image.js';
import { JetliteError } from '../../errors.js';
import { formatTxid, LTX_FLAG_NO_CHECKSUM, type LtxHeader } from '../../ltx/header.js';
import { SNAPSHOT_LEVEL } from '../../replica/names.js';
import type { ByteSource, LtxFileInfo, Replica } from '../../replica/replica.js';
import { ReplicaPages } from '../rebuild/replica-pages.js';
import { trailerChecksum } from '../rebuild/trailer.js';
import type { SessionParts } from '../session/companion.js';
import { encodeRuns } from '../session/encode-pages.js';
import { writeSnapshotSums } from './snapshot-sums.js';

export interface SnapshotSource {
  readonly txid: bigint;
  /** The state of that TXID; its owner closes it. */
  readonly image: FrozenImage;
}

export interface SnapshotOptions {
  /** Version of the lease that must still stand when the file gets its name. */
  readonly lease?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Puts the snapshot of a TXID that is durable.
 * @returns undefined, and nothing was put, if the state cannot be read from the live files any more: merge one then
 * @throws JetliteError NOT_FOUND if no file of the replica ends at that TXID; REPLICA, LeaseLostError, ABORTED
 */
export async function putSnapshot(
  replica: Replica,
  source: SnapshotSource,
  options: SnapshotOptions = {},
): Promise<LtxFileInfo | undefined> {
  const { txid, image } = source;
  const { lease, signal } = options;
  const chain = (await replica.list()).find(({ maxTxid }) => maxTxid === txid);
  if (chain === undefined) {
    throw new JetliteError('NOT_FOUND', `${replica.url} holds no file that ends at TXID ${formatTxid(txid)}`);
  }
  const { timestampMs } = chain;
  let fileChecksum = 0n;
  let spoilt = false;
  const content: ByteSource = async function* () {
    try {
      const runs = image.runs(otherwise(replica, txid));
      const last = yield* encodeRuns(headerOf(source, timestampMs), runs);
      fileChecksum = trailerChecksum(last);
      yield last;
    } catch (error) {
      spoilt = error instanceof ImageSpoilt;
      throw error;
    }
  };
  const target = {
    level: SNAPSHOT_LEVEL,
    minTxid: 1n,
    maxTxid: txid,
    timestampMs,
    ...(lease !== undefined && { lease }),
  };
  let file: LtxFileInfo;
  try {
    file = await replica.write(target, content, signal);
  } catch (error) {
    if (spoilt) return undefined;
    throw error;
  }
  await writeSnapshotSums(replica, file, image.sums, { txid, fileChecksum }, image.pageSize);
  return file;
}

/**
 * Puts a snapshot of the present state of a database that is being replicated.
 * @returns undefined if none could be taken from the live database: merge one then
 * @throws as putSnapshot
 */
export async function snapshotLive(
  session: Pick<SessionParts, 'replica' | 'uploader' | 'freeze'>,
  options: SnapshotOptions & { readonly signal: AbortSignal },
): Promise<LtxFileInfo | undefined> {
  const { signal } = options;
  const state = await session.freeze(signal);
  if (state === undefined) return undefined;
  try {
    await session.uploader.whenDurable(state.txid, signal);
    if (session.uploader.txid < state.txid) return undefined;
    return await putSnapshot(session.replica, state, options);
  } finally {
    state.image.close();
  }
}

/** The replica's own files for what the live ones have lost. */
function otherwise(replica: Replica, txid: bigint): (pgno: number, page: Uint8Array) => Promise<boolean> {
  const pages = new ReplicaPages(replica, txid);
  return async (pgno, page) => {
    try {
      return await pages.read(pgno, page);
    } catch (error) {
      // Merging reads the same files and says what is wrong with them.
      if (error instanceof JetliteError && (error.code === 'NOT_FOUND' || error.code === 'FORMAT'))
        return false;
      throw error;
    }
  };
}

function headerOf({ txid, image }: SnapshotSource, timestampMs: number): LtxHeader {
  return {
    flags: LTX_FLAG_NO_CHECKSUM,
    pageSize: image.pageSize,
    commit: image.pageCount,
    minTxid: 1n,
    maxTxid: txid,
    timestampMs,
    preApplyChecksum: 0n,
    walOffset: 0,
    walSize: 0,
    walSalt1: 0,
    walSalt2: 0,
    nodeId: 0n,
  };
}
