/**
 * One checksum a page of the last replicated state: what a resync compares the database with, so that only pages that
 * differ are written.
 *
 * 8 bytes a page (CRC-64 of the page's content), in blocks of 8,192 pages. Blocks beyond the memory limit live in a
 * file, so a database of any size needs bounded memory. The sum 0 stands for "not known": it matches nothing.
 */

import fs from 'node:fs';
import path from 'node:path';
import { Crc64 } from '../ltx/crc64.js';
import { readFully } from './files.js';

const BLOCK_PAGES = 8192;
const BLOCK_BYTES = BLOCK_PAGES * 8;

export interface PageSumsOptions {
  /** Memory for sums; beyond it they go to the file. */
  readonly memoryBytes: number;
  /** Where blocks go that do not fit into memory. It is unlinked as soon as it is open. */
  readonly spillPath: string;
}

interface Block {
  /** Two words a page: high, low. */
  readonly words: Uint32Array;
  dirty: boolean;
}

export class PageSums {
  readonly #options: PageSumsOptions;
  readonly #maxBlocks: number;
  /** In the order of use, the longest unused first. */
  readonly #blocks = new Map<number, Block>();
  readonly #inFile = new Set<number>();
  readonly #crc = new Crc64();
  #fd: number | undefined;
  #pageCount = 0;
  #lastNo = -1;
  #lastBlock: Block | undefined;

  constructor(options: PageSumsOptions) {
    this.#options = options;
    this.#maxBlocks = Math.max(2, Math.floor(options.memoryBytes / BLOCK_BYTES));
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
    if (pgno > this.#pageCount) return false;
    const { words } = this.#block(pgno);
    const at = ((pgno - 1) % BLOCK_PAGES) * 2;
    if (words[at] === 0 && words[at + 1] === 0) return false;
    this.#crc.reset();
    this.#crc.update(bytes, offset, pageSize);
    return words[at] === this.#crc.high && words[at + 1] === this.#crc.low;
  }

  /** Page `pgno` has this content now. */
  record(pgno: number, bytes: Uint8Array, offset: number, pageSize: number): void {
    if (pgno > this.#pageCount) this.#pageCount = pgno;
    const block = this.#block(pgno);
    const at = ((pgno - 1) % BLOCK_PAGES) * 2;
    this.#crc.reset();
    this.#crc.update(bytes, offset, pageSize);
    block.words[at] = this.#crc.high;
    block.words[at + 1] = this.#crc.low;
    block.dirty = true;
  }

  /** Every sum is unknown again. */
  clear(): void {
    this.pageCount = 0;
  }

  /** The sums as bytes, 8 a page (high word, low word, big-endian), block by block. */
  *serialise(): Generator<Uint8Array> {
    for (let first = 1; first <= this.#pageCount; first += BLOCK_PAGES) {
      const pages = Math.min(BLOCK_PAGES, this.#pageCount - first + 1);
      const { words } = this.#block(first);
      const bytes = new Uint8Array(pages * 8);
      const view = new DataView(bytes.buffer);
      for (let i = 0; i < pages * 2; i++) view.setUint32(i * 4, words[i]);
      yield bytes;
    }
  }

  /** Takes over what `serialise` gave; `bytes` are the sums of `pages` pages from page `first` on. */
  load(first: number, bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    for (let i = 0; i + 8 <= bytes.length; i += 8) {
      const pgno = first + i / 8;
      if (pgno > this.#pageCount) this.#pageCount = pgno;
      const block = this.#block(pgno);
      const at = ((pgno - 1) % BLOCK_PAGES) * 2;
      block.words[at] = view.getUint32(i);
      block.words[at + 1] = view.getUint32(i + 4);
      block.dirty = true;
    }
  }

  close(): void {
    if (this.#fd !== undefined) fs.closeSync(this.#fd);
    this.#fd = undefined;
    this.#blocks.clear();
    this.#inFile.clear();
    this.#lastBlock = undefined;
    this.#lastNo = -1;
  }

  #block(pgno: number): Block {
    const no = Math.floor((pgno - 1) / BLOCK_PAGES);
    if (no === this.#lastNo) return this.#lastBlock!;
    let block = this.#blocks.get(no);
    if (block === undefined) {
      if (this.#blocks.size >= this.#maxBlocks) this.#evict();
      block = { words: new Uint32Array(BLOCK_PAGES * 2), dirty: false };
      if (this.#inFile.has(no)) {
        readFully(this.#fd!, new Uint8Array(block.words.buffer), BLOCK_BYTES, no * BLOCK_BYTES);
      }
    } else {
      this.#blocks.delete(no);
    }
    this.#blocks.set(no, block);
    this.#lastNo = no;
    this.#lastBlock = block;
    return block;
  }

  #evict(): void {
    const [no, block] = this.#blocks.entries().next().value!;
    this.#blocks.delete(no);
    if (!block.dirty) return;
    if (this.#fd === undefined) {
      fs.mkdirSync(path.dirname(this.#options.spillPath), { recursive: true, mode: 0o700 });
      this.#fd = fs.openSync(this.#options.spillPath, 'w+', 0o600);
      fs.unlinkSync(this.#options.spillPath);
    }
    fs.writeSync(this.#fd, new Uint8Array(block.words.buffer), 0, BLOCK_BYTES, no * BLOCK_BYTES);
    this.#inFile.add(no);
  }

  #forgetAbove(count: number): void {
    const keep = Math.ceil(count / BLOCK_PAGES);
    for (const no of [...this.#blocks.keys()]) if (no >= keep) this.#blocks.delete(no);
    for (const no of [...this.#inFile]) if (no >= keep) this.#inFile.delete(no);
    this.#lastNo = -1;
    this.#lastBlock = undefined;
    const inLast = count % BLOCK_PAGES;
    if (inLast === 0) return;
    const last = this.#block(count);
    last.words.fill(0, inLast * 2);
    last.dirty = true;
  }
}
