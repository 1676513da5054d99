/**
 * How fast WAL bytes are checked, in MB/s of WAL:  node dist/scripts/bench/wal.js
 *
 * Each figure is the best of several rounds over the same 64 MiB, which do not fit into the processor's caches.
 */
import { FRAME_HEADER_SIZE, FrameScanner, WalChecksum } from '../../lib/sqlite/wal.js';

const SIZE = 64 << 20;
const ROUNDS = 7;

function bestRate(bytes: number, run: () => void): string {
  let best = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const startMs = performance.now();
    run();
    best = Math.max(best, bytes / 1000 / (performance.now() - startMs));
  }
  return best.toFixed(0).padStart(6);
}

/** Frames of one generation whose chain holds, from `offset` on. */
function writeFrames(memory: Uint8Array, offset: number, pageSize: number, bigEndian: boolean): number {
  const view = new DataView(memory.buffer);
  const checksum = new WalChecksum(bigEndian);
  const frameSize = FRAME_HEADER_SIZE + pageSize;
  const frames = Math.floor((memory.length - offset) / frameSize);
  for (let i = 0; i < frames; i++) {
    const at = offset + i * frameSize;
    view.setUint32(at, i + 1);
    view.setUint32(at + 4, i % 8 === 7 ? frames : 0);
    view.setUint32(at + 8, 1);
    view.setUint32(at + 12, 2);
    checksum.update(memory, at, 8);
    checksum.update(memory, at + FRAME_HEADER_SIZE, pageSize);
    view.setUint32(at + 16, checksum.s1);
    view.setUint32(at + 20, checksum.s2);
  }
  return frames;
}

const memory = new Uint8Array(SIZE + 8);
for (let i = 0; i < memory.length; i++) memory[i] = Math.imul(i, 2654435761) >>> 13;

console.log('MB/s                          little-endian  big-endian');
for (const [name, offset] of [
  ['checksum, aligned', 0],
  ['checksum, unaligned', 3],
] as const) {
  const rates = [false, true].map((bigEndian) =>
    bestRate(SIZE, () => {
      const checksum = new WalChecksum(bigEndian);
      for (let at = offset; at + 4096 <= memory.length; at += 4096) checksum.update(memory, at, 4096);
    }),
  );
  console.log(`${name.padEnd(30)}${rates[0]}      ${rates[1]}`);
}
for (const pageSize of [512, 4096, 65536]) {
  const frameSize = FRAME_HEADER_SIZE + pageSize;
  const rates = [false, true].map((bigEndian) => {
    const frames = writeFrames(memory, 0, pageSize, bigEndian);
    return bestRate(frames * frameSize, () => {
      const scanner = new FrameScanner(pageSize, 1, 2, new WalChecksum(bigEndian));
      for (let i = 0; i < frames; i++) {
        if (!scanner.next(memory, i * frameSize)) throw new Error(`frame ${i + 1} is not valid`);
      }
    });
  });
  console.log(`FrameScanner, pages of ${String(pageSize).padEnd(7)}${rates[0]}      ${rates[1]}`);
}
