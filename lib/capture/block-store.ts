/**
 * Words in numbered blocks of one size, for tables with an entry a page: the blocks last used stay in memory, up to a
 * limit, the others go to a file. A block that was never changed is zeros.
 */

import fs from 'node:fs';
import path from 'node:path';
import { makeFolderSync } from '../make-folder.js';
import { readFully } from './files.js';

export const BLOCK_WORDS = 16_384;
const BLOCK_BYTES = BLOCK_WORDS * 4;

export interface BlockStoreOptions {
  /** Memory for blocks; beyond it they go to the file. */
  readonly memoryBytes: number;
  /** Where blocks go that do not fit into memory. The file is unlinked as soon as it is open. */
  readonly spillPath: string;
}

interface Block {
  readonly words: Uint32Array;
  dirty: boolean;
}

export class BlockStore {
  readonly #options: BlockStoreOptions;
  readonly #maxBlocks: number;
  /** In the order of use, the longest unused first. */
  readonly #blocks = new Map<number, Block>();
  readonly #inFile = new Set<number>();
  #fd: number | undefined;
  #lastNo = -1;
  #last: Block | undefined;

  constructor(options: BlockStoreOptions) {
    this.#options = options;
    this.#maxBlocks = Math.max(2, Math.floor(options.memoryBytes / BLOCK_BYTES));
  }

  /** Whether block `no` was ever changed and not forgotten since. */
  has(no: number): boolean {
    return this.#inFile.has(no) || this.#blocks.get(no)?.dirty === true;
  }

  /** The words of block `no`, to be read until another block is asked for. */
  read(no: number): Uint32Array {
    return this.#block(no).words;
  }

  /** The words of block `no`, to be read and written until another block is asked for. */
  change(no: number): Uint32Array {
    const block = this.#block(no);
    block.dirty = true;
    return block.words;
  }

  /** The numbers of the blocks from `first` on that `has` knows. */
  from(first: number): number[] {
    const known = new Set(this.#inFile);
    for (const [no, { dirty }] of this.#blocks) if (dirty) known.add(no);
    return [...known].filter((no) => no >= first);
  }

  /** Makes the blocks from `first` on zeros again. */
  forgetFrom(first: number): void {
    for (const no of [...this.#blocks.keys()]) if (no >= first) this.#blocks.delete(no);
    for (const no of [...this.#inFile]) if (no >= first) this.#inFile.delete(no);
    this.#lastNo = -1;
    this.#last = undefined;
  }

  close(): void {
    if (this.#fd !== undefined) fs.closeSync(this.#fd);
    this.#fd = undefined;
    this.forgetFrom(0);
  }

  #block(no: number): Block {
    if (no === this.#lastNo) return this.#last!;
    let block = this.#blocks.get(no);
    if (block === undefined) {
      if (this.#blocks.size >= this.#maxBlocks) this.#evict();
      block = { words: new Uint32Array(BLOCK_WORDS), dirty: false };
      if (this.#inFile.has(no)) {
        readFully(this.#fd!, new Uint8Array(block.words.buffer), BLOCK_BYTES, no * BLOCK_BYTES);
      }
    } else {
      this.#blocks.delete(no);
    }
    this.#blocks.set(no, block);
    this.#lastNo = no;
    this.#last = block;
    return block;
  }

  #evict(): void {
    const [no, block] = this.#blocks.entries().next().value!;
    this.#blocks.delete(no);
    if (!block.dirty) return;
    if (this.#fd === undefined) {
      makeFolderSync(path.dirname(this.#options.spillPath));
      this.#fd = fs.openSync(this.#options.spillPath, 'w+', 0o600);
      fs.unlinkSync(this.#options.spillPath);
    }
    fs.writeSync(this.#fd, new Uint8Array(block.words.buffer), 0, BLOCK_BYTES, no * BLOCK_BYTES);
    this.#inFile.add(no);
  }
}
