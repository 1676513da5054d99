/**
 * Reads LZ4 frames (`lz4_Frame_format.md` of the LZ4 project), one page in each: how LTX files written before
 * the page flag for blocks hold their pages.
 *
 * A frame, little-endian: magic u32 · flags u8 · largest block u8 · content size u64 if flagged · one byte of
 * the descriptor's xxHash32 · blocks (size u32, whose top bit says that the bytes are not compressed; the
 * bytes; their xxHash32 if flagged) · a size of 0 · xxHash32 of the content if flagged.
 *
 * The reader asks for its input piece by piece: give feed() exactly `need` bytes until it returns true.
 */

import { lz4Bound, lz4Decompress } from './lz4.js';
import { xxHash32 } from './xxhash32.js';

const MAGIC = 0x184d2204;
const FLAG_DICTIONARY = 0x01;
const FLAG_RESERVED = 0x02;
const FLAG_CONTENT_CHECKSUM = 0x04;
const FLAG_CONTENT_SIZE = 0x08;
const FLAG_BLOCK_CHECKSUM = 0x10;
const FLAG_INDEPENDENT = 0x20;
const NOT_COMPRESSED = 0x80000000;
/** Magic, flags, largest block, hash: a descriptor without content size. */
const SHORT_DESCRIPTOR_SIZE = 7;

/** Where in the frame the next bytes stand. */
type Part = 'magic' | 'descriptor' | 'block size' | 'block' | 'content checksum';

export class Lz4FrameReader {
  readonly #page: Uint8Array;
  /** A descriptor with content size, gathered for its hash. */
  readonly #sized = new Uint8Array(11);
  #part: Part = 'magic';
  #need = SHORT_DESCRIPTOR_SIZE;
  #flags = 0;
  #blockLimit = 0;
  #blockSize = 0;
  #compressed = false;
  #at = 0;

  /** The content goes to `page` and must fill it exactly. */
  constructor(page: Uint8Array) {
    this.#page = page;
  }

  /** Bytes that feed() wants next; bounded by the LZ4 bound of the page. */
  get need(): number {
    return this.#need;
  }

  /** Begins a new frame. */
  start(): void {
    this.#part = 'magic';
    this.#need = SHORT_DESCRIPTOR_SIZE;
    this.#at = 0;
  }

  /**
   * Takes `need` bytes of `bytes` from `from`. Returns true at the end of the frame, false if more is needed,
   * or what is wrong, as words for a message.
   */
  feed(bytes: Uint8Array, from: number): boolean | string {
    switch (this.#part) {
      case 'magic':
        return this.#magic(bytes, from);
      case 'descriptor':
        return this.#descriptor(bytes, from);
      case 'block size':
        return this.#blockHeader(bytes, from);
      case 'block':
        return this.#block(bytes, from);
      case 'content checksum': {
        const found = u32(bytes, from);
        const actual = xxHash32(this.#page);
        return found === actual || `expected content with xxHash32 ${found}, found ${actual}`;
      }
    }
  }

  #magic(bytes: Uint8Array, from: number): boolean | string {
    if (u32(bytes, from) !== MAGIC) return `expected an LZ4 frame, found magic number ${u32(bytes, from)}`;
    this.#flags = bytes[from + 4];
    if (this.#flags >>> 6 !== 1) return `expected version 1 of LZ4 frames, found ${this.#flags >>> 6}`;
    if ((this.#flags & (FLAG_DICTIONARY | FLAG_RESERVED)) !== 0) {
      return `expected an LZ4 frame without dictionary, found flags ${this.#flags}`;
    }
    const blockCode = bytes[from + 5] >>> 4;
    if (blockCode < 4 || blockCode > 7)
      return `expected a largest LZ4 block of code 4 to 7, found ${blockCode}`;
    this.#blockLimit = 1 << (8 + 2 * blockCode);
    if ((this.#flags & FLAG_CONTENT_SIZE) === 0) return this.#endDescriptor(bytes, from + 4, from + 6);
    this.#part = 'descriptor';
    this.#need = 8;
    this.#sized[0] = bytes[from + 4];
    this.#sized[1] = bytes[from + 5];
    // The byte after the two is already the first of the content size.
    this.#sized[2] = bytes[from + 6];
    return false;
  }

  #descriptor(bytes: Uint8Array, from: number): boolean | string {
    this.#sized.set(bytes.subarray(from, from + 8), 3);
    const size = u32(this.#sized, 2);
    const pageSize = this.#page.length;
    if (size !== pageSize || u32(this.#sized, 6) !== 0)
      return `expected ${pageSize} bytes in the LZ4 frame, found ${size}`;
    return this.#endDescriptor(this.#sized, 0, 10);
  }

  #endDescriptor(bytes: Uint8Array, from: number, hashAt: number): boolean | string {
    const actual = (xxHash32(bytes, from, hashAt) >>> 8) & 0xff;
    if (bytes[hashAt] !== actual)
      return `expected an LZ4 frame descriptor with hash ${bytes[hashAt]}, found ${actual}`;
    this.#part = 'block size';
    this.#need = 4;
    return false;
  }

  #blockHeader(bytes: Uint8Array, from: number): boolean | string {
    const word = u32(bytes, from);
    const pageSize = this.#page.length;
    if (word === 0) {
      if (this.#at !== pageSize) return `expected ${pageSize} bytes in the LZ4 frame, found ${this.#at}`;
      if ((this.#flags & FLAG_CONTENT_CHECKSUM) === 0) return true;
      this.#part = 'content checksum';
      this.#need = 4;
      return false;
    }
    this.#compressed = word < NOT_COMPRESSED;
    this.#blockSize = this.#compressed ? word : word - NOT_COMPRESSED;
    const limit = this.#compressed ? Math.min(this.#blockLimit, lz4Bound(pageSize)) : pageSize - this.#at;
    if (this.#blockSize === 0 || this.#blockSize > limit) {
      return `expected an LZ4 block of 1 to ${limit} bytes, found ${this.#blockSize}`;
    }
    this.#part = 'block';
    this.#need = this.#blockSize + ((this.#flags & FLAG_BLOCK_CHECKSUM) !== 0 ? 4 : 0);
    return false;
  }

  #block(bytes: Uint8Array, from: number): boolean | string {
    const to = from + this.#blockSize;
    if ((this.#flags & FLAG_BLOCK_CHECKSUM) !== 0 && u32(bytes, to) !== xxHash32(bytes, from, to)) {
      return `expected an LZ4 block with xxHash32 ${u32(bytes, to)}, found ${xxHash32(bytes, from, to)}`;
    }
    const before = this.#at;
    if (this.#compressed) {
      const window = (this.#flags & FLAG_INDEPENDENT) !== 0 ? before : 0;
      const end = lz4Decompress(bytes, from, to, this.#page, before, window);
      if (end < 0) return `malformed LZ4 at byte ${~end} of its block`;
      this.#at = end;
    } else {
      this.#page.set(bytes.subarray(from, to), before);
      this.#at = before + this.#blockSize;
    }
    // Otherwise blocks that hold nothing could go on for ever.
    if (this.#at === before) return 'expected content in an LZ4 block, found none';
    this.#part = 'block size';
    this.#need = 4;
    return false;
  }
}

function u32(bytes: Uint8Array, at: number): number {
  return (bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24)) >>> 0;
}
