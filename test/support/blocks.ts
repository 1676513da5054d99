/** Large content for files, made when it is asked for: blocks of 1 MiB that differ from each other, by a seed. */

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import type { ByteSource, LtxFileInfo, Replica } from '../../lib/replica/replica.js';

const MIB = 1024 * 1024;

/** `onBlock` is called before each block and may take its time. */
export function blocks(
  count: number,
  seed: number,
  onBlock: (i: number) => Promise<void> | void = () => {},
): ByteSource {
  return async function* () {
    for (let i = 0; i < count; i++) {
      await onBlock(i);
      yield block(seed, i);
    }
  };
}

/** The file holds these blocks to the byte; `onPart` is called behind each part that was read. */
export async function assertIntact(
  replica: Replica,
  file: LtxFileInfo,
  count: number,
  seed: number,
  onPart: (i: number) => Promise<void> | void = () => {},
): Promise<void> {
  const expected = createHash('sha256');
  for (let i = 0; i < count; i++) expected.update(block(seed, i));
  const found = createHash('sha256');
  let parts = 0;
  for await (const part of replica.read(file)) {
    found.update(part);
    await onPart(parts++);
  }
  assert.equal(found.digest('hex'), expected.digest('hex'));
}

function block(seed: number, i: number): Uint8Array {
  return new Uint8Array(MIB).fill((seed * 31 + i) % 251);
}
