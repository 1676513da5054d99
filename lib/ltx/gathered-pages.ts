/**
 * The pages of many small LTX files in memory, of each page the newest version, compressed as it was read: one input of a
 * merge in the place of many, of which each would need a decoder and a stream of its own.
 */

import { Crc64 } from './crc64.js';
import { LtxDecoder } from './decoder.js';
import type { LtxEncoder } from './encoder.js';
import type { LtxHeader } from './header.js';
import { END, expectFollowing, expectRange, type LtxMergeInput, type PageCursor } from './merge-cursor.js';

/** One page: an LZ4 block with the CRC-64 remainder of what it decompresses to, or the page itself without one. */
interface GatheredPage {
  readonly block: Uint8Array;
  readonly from: number;
  readonly to: number;
  readonly remainder: Crc64 | undefined;
}

/** Pages stand in blocks of this size: a piece of memory for each of many thousands would fragment it. */
const BLOCK_SIZE = 1024 * 1024;

/** Blocks of those that were closed, as long as the collector has not come by: one merge after another needs as many. */
let spare = new WeakRef<Uint8Array[]>([]);

function takeBlock(): Uint8Array {
  return spare.deref()?.pop() ?? new Uint8Array(BLOCK_SIZE);
}

function giveBack(blocks: Uint8Array[]): void {
  const others = spare.deref();
  if (others === undefined) spare = new WeakRef(blocks);
  else others.push(...blocks);
}

export class GatheredPages implements PageCursor {
  readonly #pages = new Map<number, GatheredPage>();
  #name = '';
  #header: LtxHeader | undefined;
  #order: Uint32Array = new Uint32Array(0);
  #at = 0;
  #blocks: Uint8Array[] = [];
  #block: Uint8Array = new Uint8Array(0);
  #used = 0;
  pgno = 0;

  /** Names the file that was added last. */
  get name(): string {
    return this.#name;
  }

  /** Of the file that was added last, with the first TXID of the first one. */
  get header(): LtxHeader {
    return this.#header!;
  }

  /** Reads a whole file, verifying all of it. Throws FormatError, also if it does not follow the one before. */
  async add(input: LtxMergeInput): Promise<void> {
    const decoder = new LtxDecoder(input.name);
    for await (const chunk of input.source) {
      decoder.push(chunk);
      for (let event = decoder.next(); event !== 'more' && event !== 'end'; event = decoder.next()) {
        if (event === 'page') this.#keep(decoder);
      }
    }
    const { header } = decoder.end();
    expectRange(input, header);
    if (this.#header !== undefined) expectFollowing(this.#header, input.name, header);
    this.#header = { ...header, minTxid: this.#header?.minTxid ?? header.minTxid };
    this.#name = input.name;
  }

  async open(): Promise<void> {
    this.#order = Uint32Array.from(this.#pages.keys()).sort();
    this.#at = -1;
    this.advance();
  }

  advance(): boolean {
    this.#at++;
    this.pgno = this.#at < this.#order.length ? this.#order[this.#at] : END;
    return true;
  }

  async fill(): Promise<void> {}

  copyTo(encoder: LtxEncoder): void {
    const { block, from, to, remainder } = this.#pages.get(this.pgno)!;
    if (remainder === undefined) encoder.writePage(this.pgno, block.subarray(from, to));
    else encoder.writeCompressedPage(this.pgno, remainder, block, from, to);
  }

  async close(): Promise<void> {
    this.#pages.clear();
    this.#block = new Uint8Array(0);
    giveBack(this.#blocks);
    this.#blocks = [];
  }

  #keep(decoder: LtxDecoder): void {
    const { bytes, from, to } = decoder.block;
    if (from === to) {
      const { page } = decoder;
      this.#pages.set(decoder.pgno, { ...this.#copy(page, 0, page.length), remainder: undefined });
      return;
    }
    const remainder = new Crc64(0);
    remainder.append(decoder.remainder, decoder.page.length);
    this.#pages.set(decoder.pgno, { ...this.#copy(bytes, from, to), remainder });
  }

  #copy(bytes: Uint8Array, from: number, to: number): { block: Uint8Array; from: number; to: number } {
    const length = to - from;
    if (this.#used + length > this.#block.length) {
      this.#block = takeBlock();
      this.#blocks.push(this.#block);
      this.#used = 0;
    }
    const at = this.#used;
    this.#block.set(bytes.subarray(from, to), at);
    this.#used += length;
    return { block: this.#block, from: at, to: at + length };
  }
}
