/** Small ways to write and read LTX files whose content does not matter. */

import { LTX_LEAST_SIZE } from '../../lib/ltx/header.js';
import type {
  ByteSource,
  LtxFileInfo,
  LtxFileTarget,
  ReadRange,
  Replica,
} from '../../lib/replica/replica.js';

export function target(
  level: number,
  minTxid: bigint,
  maxTxid = minTxid,
  timestampMs = 1_700_000_000_123,
): LtxFileTarget & { readonly timestampMs: number } {
  return { level, minTxid, maxTxid, timestampMs };
}

export function bytes(text: string): ByteSource {
  return () => [Buffer.from(text)];
}

/** As long as an LTX file is at least, for who looks at that. */
export function sizedBytes(text: string): ByteSource {
  return bytes(text.padEnd(LTX_LEAST_SIZE));
}

export async function bytesOf(replica: Replica, file: LtxFileInfo, range?: ReadRange): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of replica.read(file, range)) parts.push(part.slice());
  return Buffer.concat(parts);
}

export async function contentOf(replica: Replica, file: LtxFileInfo, range?: ReadRange): Promise<string> {
  return (await bytesOf(replica, file, range)).toString();
}
