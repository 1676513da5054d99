/**
 * Page sums beside the snapshots of a replica, so that a host which kept no state compares the database with these and
 * reads only the files after the snapshot.
 *
 * They stand in companions: `page-sums/<level>-<TXID>` is the header of sums-format.ts, and `…-<n>` the n-th part of what
 * follows it. The header is written last and removed last: where it stands, the parts do, and what is left behind without
 * one is written over. They are believed only if they are whole and bound, by its checksum, to the very file that stands
 * beside them.
 */

import type { FrozenSums, PageSums } from '../../capture/page-sums.js';
import {
  encodeSums,
  SUMS_END_SIZE,
  SUMS_HEADER_SIZE,
  SumsDecoder,
  type SumsOrigin,
} from '../../capture/sums-format.js';
import { ConflictError, JetliteError } from '../../errors.js';
import { decodeLtxHeader, formatTxid, LTX_HEADER_SIZE } from '../../ltx/header.js';
import type { LtxFileInfo, Replica } from '../../replica/replica.js';
import { readTrailer } from '../rebuild/trailer.js';

/** So many bytes of sums are in memory at a time: a million pages. */
const PART_BYTES = 8 * 1024 * 1024;

/** Writes the sums of the state that `file`, a snapshot, holds. Throws REPLICA. */
export async function writeSnapshotSums(
  replica: Replica,
  file: LtxFileInfo,
  sums: PageSums | FrozenSums,
  origin: SumsOrigin,
  pageSize: number,
): Promise<void> {
  const name = nameOf(file);
  let header: Uint8Array | undefined;
  let part: Uint8Array[] = [];
  let bytes = 0;
  let no = 0;
  const flush = async (): Promise<void> => {
    await replica.writeExtra(`${name}-${no}`, Buffer.concat(part, bytes));
    part = [];
    bytes = 0;
    no++;
  };
  for (const block of encodeSums(sums, origin, pageSize)) {
    if (header === undefined) {
      header = block;
      continue;
    }
    if (bytes + block.length > PART_BYTES) await flush();
    part.push(block);
    bytes += block.length;
  }
  await flush();
  await replica.writeExtra(name, header!);
}

/**
 * Loads the sums of the newest snapshot that has sound ones into empty `sums`.
 * @returns the TXID of the state they describe; undefined, and `sums` empty, if there are none
 */
export async function readSnapshotSums(
  replica: Replica,
  files: readonly LtxFileInfo[],
  sums: PageSums,
  pageSize: number,
): Promise<bigint | undefined> {
  const snapshots = files.filter(({ minTxid }) => minTxid === 1n);
  snapshots.sort((a, b) => (a.maxTxid < b.maxTxid ? 1 : a.maxTxid > b.maxTxid ? -1 : b.level - a.level));
  for (const file of snapshots) {
    try {
      if (await readSumsOf(replica, file, sums, pageSize)) return file.maxTxid;
    } catch (error) {
      // Whoever reads the file itself says what is wrong with it.
      if (!(error instanceof JetliteError && (error.code === 'FORMAT' || error.code === 'NOT_FOUND')))
        throw error;
    }
    sums.clear();
  }
  return undefined;
}

/** Removes what stands beside files that are to be removed. Throws REPLICA. */
export async function removeSnapshotSums(replica: Replica, files: readonly LtxFileInfo[]): Promise<void> {
  for (const file of files) {
    if (file.minTxid !== 1n) continue;
    const name = nameOf(file);
    const header = await replica.readExtra(name);
    // Who was killed before the header was written has left a part or more: one, as a rule.
    const isWhole = header?.bytes.length === SUMS_HEADER_SIZE;
    const pages = isWhole ? Buffer.from(header.bytes).readUInt32BE(28) : 0;
    for (let no = partCount(pages) - 1; no >= 0; no--) await replica.removeExtra(`${name}-${no}`);
    try {
      if (header !== undefined) await replica.removeExtra(name, header.version);
    } catch (error) {
      // Somebody writes the snapshot anew.
      if (!(error instanceof ConflictError)) throw error;
    }
  }
}

async function readSumsOf(
  replica: Replica,
  file: LtxFileInfo,
  sums: PageSums,
  pageSize: number,
): Promise<boolean> {
  const name = nameOf(file);
  const header = await replica.readExtra(name);
  if (header === undefined || header.bytes.length !== SUMS_HEADER_SIZE) return false;
  const decoder = new SumsDecoder(sums, pageSize);
  if (!decoder.push(header.bytes)) return false;
  const { origin, pageCount } = decoder;
  if (origin!.txid !== file.maxTxid || origin!.fileChecksum !== (await readTrailer(replica, file)))
    return false;
  if (pageCount !== (await readCommit(replica, file, pageSize))) return false;
  for (let no = 0; no < partCount(pageCount); no++) {
    const part = await replica.readExtra(`${name}-${no}`);
    if (part === undefined || part.bytes.length % 8 !== 0 || !decoder.push(part.bytes)) return false;
  }
  return decoder.end() !== undefined;
}

/** Size in pages of the state that a file leads to, by its header; undefined if that is no sound one of this page size. */
async function readCommit(
  replica: Replica,
  file: LtxFileInfo,
  pageSize: number,
): Promise<number | undefined> {
  const parts: Uint8Array[] = [];
  for await (const part of replica.read(file, { offset: 0, length: LTX_HEADER_SIZE }))
    parts.push(part.slice());
  const header = decodeLtxHeader(Buffer.concat(parts));
  return header.pageSize === pageSize && header.maxTxid === file.maxTxid ? header.commit : undefined;
}

function nameOf(file: LtxFileInfo): string {
  return `page-sums/${file.level}-${formatTxid(file.maxTxid)}`;
}

/** The parts of so many pages: blocks of 64 KiB fill the parts but the last, which has the rest and the end. */
function partCount(pageCount: number): number {
  return Math.ceil((pageCount * 8 + SUMS_END_SIZE) / PART_BYTES);
}
