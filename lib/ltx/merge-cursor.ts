/** What a merge walks over: files, or what was gathered of several, page by page in ascending order. */

import { FormatError } from '../errors.js';
import { LtxDecoder } from './decoder.js';
import type { LtxEncoder } from './encoder.js';
import { formatTxid, type LtxHeader } from './header.js';

/** The page number of a cursor that has ended. */
export const END = Number.POSITIVE_INFINITY;

/** Stands on one page of an input after another. */
export interface PageCursor {
  /** The input's name, for messages. */
  readonly name: string;
  /** Once it is open. */
  readonly header: LtxHeader;
  /** The page it stands on, or END. */
  readonly pgno: number;
  /** Reads the header and goes to the first page. */
  open(): Promise<void>;
  /** Goes to the next page if it is at hand; false if fill() must get more. */
  advance(): boolean;
  /** Goes to the next page, asking the source for as much as that takes. */
  fill(): Promise<void>;
  copyTo(encoder: LtxEncoder): void;
  close(): Promise<void>;
}

/** One file. */
export interface LtxMergeInput {
  /** The file's name, for messages. */
  readonly name: string;
  /** The file's bytes. Sources are read side by side, a piece of each at a time. */
  readonly source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
  /** The TXIDs that the header must state; left out, any. */
  readonly range?: { readonly minTxid: bigint; readonly maxTxid: bigint };
}

/** Throws FormatError if a file's header has other TXIDs than it should. */
export function expectRange(input: LtxMergeInput, header: LtxHeader): void {
  const { range } = input;
  if (range === undefined || (header.minTxid === range.minTxid && header.maxTxid === range.maxTxid)) return;
  throw new FormatError(
    `${input.name}, header`,
    `expected TXIDs ${formatTxid(range.minTxid)} to ${formatTxid(range.maxTxid)}, ` +
      `found ${formatTxid(header.minTxid)} to ${formatTxid(header.maxTxid)}`,
  );
}

/** Throws FormatError unless a file can be laid over the one before: no hole between them, and a later end. */
export function expectFollowing(before: LtxHeader, name: string, header: LtxHeader): void {
  const { minTxid, maxTxid, pageSize } = header;
  if (minTxid > before.maxTxid + 1n || maxTxid <= before.maxTxid) {
    throw new FormatError(
      name,
      `expected a file from TXID ${formatTxid(before.maxTxid + 1n)}, found one from ${formatTxid(minTxid)}` +
        (maxTxid <= before.maxTxid ? ` to ${formatTxid(maxTxid)}` : ''),
    );
  }
  if (pageSize !== before.pageSize) {
    throw new FormatError(name, `expected pages of ${before.pageSize} bytes, found ${pageSize}`);
  }
}

/** Over one file as it comes in. */
export class FileCursor implements PageCursor {
  readonly name: string;
  pgno = 0;
  readonly #decoder: LtxDecoder;
  readonly #input: LtxMergeInput;
  #pieces: AsyncIterator<Uint8Array> | Iterator<Uint8Array> | undefined;

  constructor(input: LtxMergeInput) {
    this.name = input.name;
    this.#input = input;
    this.#decoder = new LtxDecoder(input.name);
  }

  get header(): LtxHeader {
    return this.#decoder.header!;
  }

  async open(): Promise<void> {
    const { source } = this.#input;
    this.#pieces =
      Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]();
    await this.fill();
    expectRange(this.#input, this.header);
  }

  advance(): boolean {
    let event = this.#decoder.next();
    if (event === 'header') event = this.#decoder.next();
    if (event === 'page') this.pgno = this.#decoder.pgno;
    return event === 'page';
  }

  async fill(): Promise<void> {
    do {
      const { value, done } = await this.#pieces!.next();
      if (done === true) {
        this.#decoder.end();
        this.pgno = END;
        return;
      }
      this.#decoder.push(value);
    } while (!this.advance());
  }

  copyTo(encoder: LtxEncoder): void {
    const { bytes, from, to } = this.#decoder.block;
    if (from === to) encoder.writePage(this.pgno, this.#decoder.page);
    else encoder.writeCompressedPage(this.pgno, this.#decoder.remainder, bytes, from, to);
  }

  async close(): Promise<void> {
    await this.#pieces?.return?.();
  }
}
