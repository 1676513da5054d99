/**
 * What Litestream keeps beside a database: in `.<name>-litestream/ltx/0` its own level-0 files, the newest of them perhaps
 * never uploaded.
 *
 * When Litestream comes back it trusts that folder if it reaches as far as the replica's level 0 or farther, and uploads what
 * is beyond the replica's end. Files of an interrupted run would then be laid over what Jetlite put meanwhile, changes of
 * one state upon another. So:
 * 1. Before the first file of ours, what the folder holds beyond the replica's end is put there, byte for byte: states of
 *    the database that Litestream captured. After that the replica reaches at least as far as the folder, always.
 * 2. Only if the folder continues this very chain: the file at the replica's end is in it with the same checksum, or the
 *    replica is empty and the folder begins at TXID 1.
 * 3. All or nothing: every one of those files is read and found sound before one is put.
 * 4. A folder of another chain (Litestream at work with another replica) is left alone, with a warning if it reaches
 *    farther. Where it cannot be told whose it is, nothing is put at all.
 */

import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { CaptureEvent } from '../../capture/capture.js';
import { ConflictError, FormatError, JetliteError, throwIfAborted } from '../../errors.js';
import { decodeLtx } from '../../ltx/decoder.js';
import { formatTxid, LTX_TRAILER_SIZE, ltxFileName, parseLtxFileName } from '../../ltx/header.js';
import { namesIn } from '../../replica/durable-file.js';
import type { LtxFileInfo, Replica } from '../../replica/replica.js';
import { writerOf } from '../../replica/writer.js';
import { readTrailer, trailerChecksum } from '../rebuild/trailer.js';

export interface TakeOverOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onEvent?: ((event: CaptureEvent) => void) | undefined;
}

const READ_SIZE = 1024 * 1024;

/**
 * Puts what Litestream did not get to upload, if anything. `database` is the path with links resolved.
 * @returns how many files were put
 * @throws JetliteError FORMAT if such a file is damaged or missing, CONFLICT if it cannot be told whether they belong here
 */
export async function putWhatLitestreamKept(
  replica: Replica,
  database: string,
  options: TakeOverOptions = {},
): Promise<number> {
  const folder = join(dirname(database), `.${basename(database)}-litestream`);
  const kept = await keptTxids(folder);
  const reach = kept.reduce((highest, txid) => (txid > highest ? txid : highest), 0n);
  if (reach === 0n) return 0;
  const files = await replica.list();
  const end = files.reduce((highest, { maxTxid }) => (maxTxid > highest ? maxTxid : highest), 0n);
  if (reach <= end) return 0;

  const belongs = await isContinuation(replica, files, end, folder, kept);
  if (!belongs) {
    options.onEvent?.({
      type: 'state',
      level: 'warn',
      message: `${folder} reaches to TXID ${formatTxid(reach)} of another replica: remove it before Litestream may write to ${replica.url}`,
    });
    return 0;
  }
  const missing: Kept[] = [];
  for (let txid = end + 1n; txid <= reach; txid++) {
    throwIfAborted(options.signal, 'taking over from Litestream');
    missing.push(await examine(folder, txid));
  }
  for (const { path, txid, timestampMs } of missing) {
    const target = { level: 0, minTxid: txid, maxTxid: txid, timestampMs };
    await replica.write(target, () => createReadStream(path, { highWaterMark: READ_SIZE }), options.signal);
  }
  options.onEvent?.({
    type: 'state',
    level: 'info',
    message: `took over ${missing.length} files that Litestream had not uploaded, up to TXID ${formatTxid(reach)}`,
  });
  return missing.length;
}

/** The TXIDs of the folder's level-0 files. */
async function keptTxids(folder: string): Promise<bigint[]> {
  const txids: bigint[] = [];
  for (const name of await namesIn(join(folder, 'ltx', '0'))) {
    const range = parseLtxFileName(name);
    if (range !== undefined && range.minTxid === range.maxTxid) txids.push(range.minTxid);
  }
  return txids;
}

/** Whether the folder's files go on where the replica ends at TXID `end`. */
async function isContinuation(
  replica: Replica,
  files: readonly LtxFileInfo[],
  end: bigint,
  folder: string,
  kept: readonly bigint[],
): Promise<boolean> {
  if (end === 0n) return kept.includes(1n);
  const last = files.find(({ level, minTxid, maxTxid }) => level === 0 && minTxid === end && maxTxid === end);
  if (last !== undefined && kept.includes(end)) {
    return (await trailerAt(keptPath(folder, end))) === (await readTrailer(replica, last));
  }
  // Litestream has what it wrote last, or took from the replica to go on with it: this end is neither, or it could not
  // go on from here anyway.
  if (!kept.includes(end + 1n) || (last !== undefined && (await writerOf(replica, last)) === 'Jetlite'))
    return false;
  throw new ConflictError(
    `${folder} goes on to TXID ${formatTxid(end + 1n)} where ${replica.url} ends, and nothing shows whether it belongs to it`,
    { hint: 'Start Litestream once more so that it uploads what it has, or remove that folder.' },
  );
}

interface Kept {
  readonly txid: bigint;
  readonly path: string;
  readonly timestampMs: number;
}

/** Reads a kept file to its end. Throws FORMAT if it is not there, damaged, or of another TXID. */
async function examine(folder: string, txid: bigint): Promise<Kept> {
  const path = keptPath(folder, txid);
  try {
    const source = createReadStream(path, { highWaterMark: READ_SIZE });
    const { header } = await decodeLtx(path, source, {});
    if (header.minTxid === txid && header.maxTxid === txid)
      return { txid, path, timestampMs: header.timestampMs };
    throw new FormatError(
      path,
      `expected TXID ${formatTxid(txid)} alone, found ${ltxFileName(header.minTxid, header.maxTxid)}`,
    );
  } catch (error) {
    const reason =
      (error as NodeJS.ErrnoException).code === 'ENOENT' ? `${path} is missing` : (error as Error).message;
    throw new JetliteError('FORMAT', `what Litestream had not uploaded yet is not sound: ${reason}`, {
      hint: `Remove ${folder} (or run litestream reset) to go on without it; the database itself has everything.`,
      cause: error,
    });
  }
}

function keptPath(folder: string, txid: bigint): string {
  return join(folder, 'ltx', '0', ltxFileName(txid, txid));
}

async function trailerAt(path: string): Promise<bigint | undefined> {
  const handle = await open(path, 'r');
  try {
    const { size } = await handle.stat();
    if (size < LTX_TRAILER_SIZE) return undefined;
    const end = new Uint8Array(8);
    await handle.read(end, 0, 8, size - 8);
    return trailerChecksum(end);
  } finally {
    await handle.close();
  }
}
