/** Which program wrote a level-0 file, as far as the file itself tells. */

import { open } from 'node:fs/promises';
import { decodeLtxHeader, LTX_HEADER_SIZE, type LtxHeader } from '../ltx/header.js';
import { ltxPath } from './names.js';
import type { LtxFileInfo, Replica } from './replica.js';

/**
 * Level-0 files of ours carry WAL offset 32, size 0 and no salts: Litestream, should it take the replica over, then
 * begins with a snapshot of its own instead of trusting a place in a WAL that it has not seen.
 */
export const OUR_WAL_OFFSET = 32;

export type WriterName = 'Jetlite' | 'Litestream' | 'another program';

/** Reads the header of a level-0 file. Throws what `Replica.read` throws, FORMAT if it is no LTX file. */
export async function writerOf(replica: Replica, file: LtxFileInfo): Promise<WriterName> {
  const bytes = new Uint8Array(LTX_HEADER_SIZE);
  let at = 0;
  for await (const chunk of replica.read(file, { offset: 0, length: LTX_HEADER_SIZE })) {
    bytes.set(chunk.subarray(0, LTX_HEADER_SIZE - at), at);
    at += chunk.length;
  }
  return writerOfHeader(decodeLtxHeader(bytes.subarray(0, Math.min(at, LTX_HEADER_SIZE)), ltxPath(file)));
}

/** The same of a file in a folder, and the time it is of; for messages: what cannot be read was put by another program. */
export async function whoWrote(path: string): Promise<{ writer: WriterName; timestampMs: number }> {
  let timestampMs = Date.now();
  try {
    const handle = await open(path, 'r');
    try {
      timestampMs = (await handle.stat()).mtimeMs;
      const bytes = new Uint8Array(LTX_HEADER_SIZE);
      const { bytesRead } = await handle.read(bytes, 0, LTX_HEADER_SIZE, 0);
      return { writer: writerOfHeader(decodeLtxHeader(bytes.subarray(0, bytesRead), path)), timestampMs };
    } finally {
      await handle.close();
    }
  } catch {
    return { writer: 'another program', timestampMs };
  }
}

function writerOfHeader(header: LtxHeader): WriterName {
  const { walOffset, walSize, walSalt1, walSalt2 } = header;
  if (walSalt1 !== 0 || walSalt2 !== 0) return 'Litestream';
  return walOffset === OUR_WAL_OFFSET && walSize === 0 ? 'Jetlite' : 'another program';
}
