/**
 * The newest version of each page of one batch, image or resync.
 *
 * Memory stays bounded whatever is put in: the first pages, up to a limit, stay in memory; what comes after goes to a
 * sparse spill file, each page at its own place in it, so that all that must be remembered is one bit a page.
 */

import fs from 'node:fs';
import path from 'node:path';
import { makeFolderSync } from '../make-folder.js';
import { readFully } from './files.js';

export interface PageSetOptions {
  /** Bytes of page content kept in memory. */
  readonly memoryBytes: number;
  /** Where the spill file goes if one is needed. It is unlinked as soon as it is open. */
  readonly spillPath: string;
}

const ARENA_BYTES = 256 * 1024;
const BITMAP_BLOCK_BYTES = 4096;
const BITMAP_BLOCK_PAGES = BITMAP_BLOCK_BYTES * 8;
/** Spilled pages are read back this many bytes at a time: they may lie close together or far apart. */
const WINDOW_BYTES = 32 * 1024;

export class PageSet {
  readonly pageSize: number;
  readonly #options: PageSetOptions;
  readonly #memoryPages: number;
  readonly #pagesPerArena: number;
  /** Page number to slot; slot i is `pageSize` bytes of arena `floor(i / pagesPerArena)`. */
  readonly #slots = new Map<number, number>();
  readonly #freeSlots: number[] = [];
  readonly #arenas: Uint8Array[] = [];
  readonly #spilled = new Map<number, Uint8Array>();
  #spilledCount = 0;
  /** No page above it is in the set. */
  #highest = 0;
  #spillFd: number | undefined;

  constructor(pageSize: number, options: PageSetOptions) {
    this.pageSize = pageSize;
    this.#options = options;
    this.#pagesPerArena = Math.max(1, Math.floor(ARENA_BYTES / pageSize));
    this.#memoryPages = Math.max(this.#pagesPerArena, Math.floor(options.memoryBytes / pageSize));
  }

  /** Number of distinct pages. */
  get size(): number {
    return this.#slots.size + this.#spilledCount;
  }

  /** Content held, bytes. */
  get bytes(): number {
    return this.size * this.pageSize;
  }

  has(pgno: number): boolean {
    return this.#slots.has(pgno) || this.#isSpilled(pgno);
  }

  /** Copies `pageSize` bytes of `bytes` from `offset` on: they are page `pgno` now. */
  set(pgno: number, bytes: Uint8Array, offset: number): void {
    if (pgno > this.#highest) this.#highest = pgno;
    let slot = this.#slots.get(pgno);
    if (slot === undefined) {
      const memoryFull = this.#freeSlots.length === 0 && this.#slots.size >= this.#memoryPages;
      if (memoryFull || this.#isSpilled(pgno)) {
        this.#spill(pgno, bytes, offset);
        return;
      }
      slot = this.#freeSlots.pop() ?? this.#slots.size;
      this.#slots.set(pgno, slot);
    }
    const arenaNo = Math.floor(slot / this.#pagesPerArena);
    let arena = this.#arenas[arenaNo];
    if (arena === undefined) {
      arena = new Uint8Array(this.#pagesPerArena * this.pageSize);
      this.#arenas[arenaNo] = arena;
    }
    arena.set(bytes.subarray(offset, offset + this.pageSize), this.#slotOffset(slot));
  }

  /** Copies page `pgno`, which must be in the set, to `into` at `offset`. */
  read(pgno: number, into: Uint8Array, offset: number): void {
    const slot = this.#slots.get(pgno);
    if (slot === undefined) {
      readFully(this.#spillFd!, into, this.pageSize, (pgno - 1) * this.pageSize, offset);
      return;
    }
    const at = this.#slotOffset(slot);
    const arena = this.#arenas[Math.floor(slot / this.#pagesPerArena)];
    into.set(arena.subarray(at, at + this.pageSize), offset);
  }

  /** Forgets one page. */
  delete(pgno: number): void {
    const slot = this.#slots.get(pgno);
    if (slot !== undefined) {
      this.#slots.delete(pgno);
      this.#freeSlots.push(slot);
    } else if (this.#isSpilled(pgno)) {
      const block = this.#spilled.get(Math.floor(pgno / BITMAP_BLOCK_PAGES))!;
      const bit = pgno % BITMAP_BLOCK_PAGES;
      block[bit >> 3] &= ~(1 << (bit & 7));
      this.#spilledCount--;
    }
  }

  /** Forgets the pages above `pageCount`: the database has shrunk to it. */
  truncate(pageCount: number): void {
    if (this.#highest <= pageCount) return;
    this.#highest = pageCount;
    for (const pgno of [...this.#slots.keys()]) if (pgno > pageCount) this.delete(pgno);
    for (const blockNo of [...this.#spilled.keys()]) {
      if ((blockNo + 1) * BITMAP_BLOCK_PAGES <= pageCount) continue;
      for (const pgno of this.#spilledIn(blockNo)) if (pgno > pageCount) this.delete(pgno);
    }
  }

  /** Empties the set; memory and spill file stay for the next use. */
  clear(): void {
    this.#slots.clear();
    this.#freeSlots.length = 0;
    this.#spilled.clear();
    this.#spilledCount = 0;
    this.#highest = 0;
    if (this.#spillFd !== undefined) fs.ftruncateSync(this.#spillFd, 0);
  }

  /** Lets go of memory and spill file. The set is empty afterwards. */
  close(): void {
    if (this.#spillFd !== undefined) fs.closeSync(this.#spillFd);
    this.#spillFd = undefined;
    this.#arenas.length = 0;
    this.clear();
  }

  /** The pages, ascending. `page` is the set's own memory, valid until the next step: copy to keep. */
  *pages(): Generator<{ readonly pgno: number; readonly page: Uint8Array }> {
    const inMemory = Uint32Array.from(this.#slots.keys()).sort();
    const spilled = this.#spilledAscending();
    let nextSpilled = spilled.next();
    let memoryAt = 0;
    const window = new Uint8Array(this.#spilledCount === 0 ? 0 : Math.max(this.pageSize, WINDOW_BYTES));
    let windowStart = 0;
    let windowEnd = 0;
    while (memoryAt < inMemory.length || !nextSpilled.done) {
      if (nextSpilled.done || (memoryAt < inMemory.length && inMemory[memoryAt] < nextSpilled.value)) {
        const pgno = inMemory[memoryAt++];
        const slot = this.#slots.get(pgno);
        if (slot === undefined) continue;
        const at = this.#slotOffset(slot);
        const arena = this.#arenas[Math.floor(slot / this.#pagesPerArena)];
        yield { pgno, page: arena.subarray(at, at + this.pageSize) };
        continue;
      }
      const pgno = nextSpilled.value;
      const position = (pgno - 1) * this.pageSize;
      if (position < windowStart || position + this.pageSize > windowEnd) {
        windowStart = position;
        windowEnd = position + readFully(this.#spillFd!, window, window.length, position);
      }
      const at = position - windowStart;
      yield { pgno, page: window.subarray(at, at + this.pageSize) };
      nextSpilled = spilled.next();
    }
  }

  #slotOffset(slot: number): number {
    return (slot % this.#pagesPerArena) * this.pageSize;
  }

  #isSpilled(pgno: number): boolean {
    if (this.#spilledCount === 0) return false;
    const block = this.#spilled.get(Math.floor(pgno / BITMAP_BLOCK_PAGES));
    if (block === undefined) return false;
    const bit = pgno % BITMAP_BLOCK_PAGES;
    return (block[bit >> 3] & (1 << (bit & 7))) !== 0;
  }

  #spill(pgno: number, bytes: Uint8Array, offset: number): void {
    if (this.#spillFd === undefined) {
      makeFolderSync(path.dirname(this.#options.spillPath));
      this.#spillFd = fs.openSync(this.#options.spillPath, 'w+', 0o600);
      fs.unlinkSync(this.#options.spillPath);
    }
    fs.writeSync(this.#spillFd, bytes, offset, this.pageSize, (pgno - 1) * this.pageSize);
    if (this.#isSpilled(pgno)) return;
    const blockNo = Math.floor(pgno / BITMAP_BLOCK_PAGES);
    let block = this.#spilled.get(blockNo);
    if (block === undefined) {
      block = new Uint8Array(BITMAP_BLOCK_BYTES);
      this.#spilled.set(blockNo, block);
    }
    const bit = pgno % BITMAP_BLOCK_PAGES;
    block[bit >> 3] |= 1 << (bit & 7);
    this.#spilledCount++;
  }

  *#spilledAscending(): Generator<number, undefined> {
    for (const blockNo of [...this.#spilled.keys()].sort((a, b) => a - b)) yield* this.#spilledIn(blockNo);
    return undefined;
  }

  *#spilledIn(blockNo: number): Generator<number> {
    const block = this.#spilled.get(blockNo)!;
    for (let i = 0; i < BITMAP_BLOCK_BYTES; i++) {
      if (block[i] === 0) continue;
      for (let bit = 0; bit < 8; bit++) {
        if ((block[i] & (1 << bit)) !== 0) yield blockNo * BITMAP_BLOCK_PAGES + i * 8 + bit;
      }
    }
  }
}
