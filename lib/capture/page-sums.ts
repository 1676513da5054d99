/**
 * One checksum a page of the last replicated state: what a resync compares the database with, so that only pages that
 * differ are written.
 *
 * 8 bytes a page (CRC-64 of the page's content), in blocks of 8,192 pages. Blocks beyond the memory limit live in a
 * file, so a database of any size needs bounded memory. The sum 0 stands for "not known": it matches nothing.
 *
 * `freeze` keeps the sums of a moment for whoever reads that state later. A block is copied only when it changes.
 */

import { Crc64 } from '../ltx/crc64.js';
import { BLOCK_WORDS, BlockStore, type BlockStoreOptions } from './block-store.js';

export type PageSumsOptions = BlockStoreOptions;

const BLOCK_PAGES = BLOCK_WORDS / 2;
const crc = new Crc64();

/** Where the words of a block are to be had: two a page, high and low. */
type Blocks = (no: number) => Uint32Array;

export class PageSums {
  readonly #store: BlockStore;
  readonly #frozen = new Set<FrozenSums>();
  readonly #read: Blocks = (no) => this.#store.read(no);
  #pageCount = 0;

  constructor(options: PageSumsOptions) {
    this.#store = new BlockStore(options);
  }

  /** Size in pages of the state the sums describe. Raising it adds unknown sums, lowering it forgets those above. */
  get pageCount(): number {
    return this.#pageCount;
  }

  set pageCount(count: number) {
    if (count < this.#pageCount) this.#forgetAbove(count);
    this.#pageCount = count;
  }

  /** Whether page `pgno` of the described state has exactly this content. */
  matches(pgno: number, bytes: Uint8Array, offset: number, pageSize: number): boolean {
    return pgno <= this.#pageCount && matchesSum(this.#read, pgno, bytes, offset, pageSize);
  }

  /** Page `pgno` has this content now. */
  record(pgno: number, bytes: Uint8Array, offset: number, pageSize: number): void {
    crc.reset();
    crc.update(bytes, offset, pageSize);
    this.#put(pgno);
  }

  /** The same, where only the CRC-64 remainder of the content is at hand. */
  recordRemainder(pgno: number, remainder: Crc64, pageSize: number): void {
    crc.reset();
    crc.append(remainder, pageSize);
    this.#put(pgno);
  }

  /** Every sum is unknown again. */
  clear(): void {
    this.pageCount = 0;
  }

  /** The sums as bytes, 8 a page (high word, low word, big-endian), block by block. */
  serialise(): Generator<Uint8Array> {
    return serialise(this.#read, this.#pageCount);
  }

  /** Takes over what `serialise` gave; `bytes` are the sums of `pages` pages from page `first` on. */
  load(first: number, bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    for (let i = 0; i + 8 <= bytes.length; i += 8) {
      const pgno = first + i / 8;
      if (pgno > this.#pageCount) this.#pageCount = pgno;
      const words = this.#change(blockOf(pgno));
      const at = placeOf(pgno);
      words[at] = view.getUint32(i);
      words[at + 1] = view.getUint32(i + 4);
    }
  }

  /** The sums as they are now, whatever becomes of these; close them before these. `options` are for the copies. */
  freeze(options: PageSumsOptions): FrozenSums {
    const frozen = new FrozenSums(this.#pageCount, this.#read, options, () => this.#frozen.delete(frozen));
    this.#frozen.add(frozen);
    return frozen;
  }

  close(): void {
    for (const frozen of [...this.#frozen]) frozen.close();
    this.#store.close();
  }

  #put(pgno: number): void {
    if (pgno > this.#pageCount) this.#pageCount = pgno;
    const words = this.#change(blockOf(pgno));
    const at = placeOf(pgno);
    words[at] = crc.high;
    words[at + 1] = crc.low;
  }

  #change(no: number): Uint32Array {
    if (this.#frozen.size > 0) for (const frozen of this.#frozen) frozen.keep(no);
    return this.#store.change(no);
  }

  #forgetAbove(count: number): void {
    const keep = Math.ceil(count / BLOCK_PAGES);
    for (const frozen of this.#frozen) for (const no of this.#store.from(keep)) frozen.keep(no);
    this.#store.forgetFrom(keep);
    const inLast = count % BLOCK_PAGES;
    if (inLast > 0) this.#change(blockOf(count)).fill(0, inLast * 2);
  }
}

/** The sums of one moment. */
export class FrozenSums {
  /** Size in pages of the state they describe. */
  readonly pageCount: number;
  readonly #copies: BlockStore;
  readonly #read: Blocks;
  readonly #live: Blocks;
  readonly #release: () => void;

  /** Made by PageSums.freeze. */
  constructor(pageCount: number, live: Blocks, options: PageSumsOptions, release: () => void) {
    this.pageCount = pageCount;
    this.#live = live;
    this.#copies = new BlockStore(options);
    this.#read = (no) => (this.#copies.has(no) ? this.#copies.read(no) : live(no));
    this.#release = release;
  }

  /** Whether page `pgno` had exactly this content. */
  matches(pgno: number, bytes: Uint8Array, offset: number, pageSize: number): boolean {
    return pgno <= this.pageCount && matchesSum(this.#read, pgno, bytes, offset, pageSize);
  }

  /** Whether anything is known of page `pgno`; if not, no file of the chain has it. */
  isKnown(pgno: number): boolean {
    const words = this.#read(blockOf(pgno));
    const at = placeOf(pgno);
    return words[at] !== 0 || words[at + 1] !== 0;
  }

  /** As PageSums.serialise. */
  serialise(): Generator<Uint8Array> {
    return serialise(this.#read, this.pageCount);
  }

  /** The live sums are about to change in block `no`. */
  keep(no: number): void {
    if (no * BLOCK_PAGES >= this.pageCount || this.#copies.has(no)) return;
    this.#copies.change(no).set(this.#live(no));
  }

  close(): void {
    this.#release();
    this.#copies.close();
  }
}

function blockOf(pgno: number): number {
  return Math.floor((pgno - 1) / BLOCK_PAGES);
}

function placeOf(pgno: number): number {
  return ((pgno - 1) % BLOCK_PAGES) * 2;
}

function matchesSum(
  read: Blocks,
  pgno: number,
  bytes: Uint8Array,
  offset: number,
  pageSize: number,
): boolean {
  const words = read(blockOf(pgno));
  const at = placeOf(pgno);
  if (words[at] === 0 && words[at + 1] === 0) return false;
  crc.reset();
  crc.update(bytes, offset, pageSize);
  return words[at] === crc.high && words[at + 1] === crc.low;
}

function* serialise(read: Blocks, pageCount: number): Generator<Uint8Array> {
  for (let first = 1; first <= pageCount; first += BLOCK_PAGES) {
    const pages = Math.min(BLOCK_PAGES, pageCount - first + 1);
    const words = read(blockOf(first));
    const bytes = new Uint8Array(pages * 8);
    const view = new DataView(bytes.buffer);
    for (let i = 0; i < pages * 2; i++) view.setUint32(i * 4, words[i]);
    yield bytes;
  }
}
