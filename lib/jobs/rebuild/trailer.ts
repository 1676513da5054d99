/** The end of an LTX file: the checksum by which one file is told from another of the same name. */

import { LTX_TRAILER_SIZE } from '../../ltx/header.js';
import type { LtxFileInfo, Replica } from '../../replica/replica.js';

/** The file checksum: the last 8 bytes of an LTX file. */
export function trailerChecksum(end: Uint8Array): bigint {
  return new DataView(end.buffer, end.byteOffset + end.length - 8, 8).getBigUint64(0);
}

/** The checksum in a file's trailer; undefined if it is too short for one. */
export async function readTrailer(replica: Replica, file: LtxFileInfo): Promise<bigint | undefined> {
  if (file.size < LTX_TRAILER_SIZE) return undefined;
  const end = new Uint8Array(8);
  let at = 0;
  for await (const chunk of replica.read(file, { offset: file.size - 8, length: 8 })) {
    end.set(chunk.subarray(0, 8 - at), at);
    at += chunk.length;
  }
  return at === 8 ? trailerChecksum(end) : undefined;
}
