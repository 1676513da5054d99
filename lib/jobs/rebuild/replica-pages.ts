/**
 * Single pages of a state that a replica holds, by the page indexes of its files: for the few that are missing elsewhere.
 * No checksum of LTX covers a page by itself: whoever asks must know the page when it is the right one.
 */

import { decodePage } from '../../ltx/page.js';
import { type PageIndex, readPageIndex } from '../../ltx/page-index.js';
import { ltxPath } from '../../replica/names.js';
import type { LtxFileInfo, Replica } from '../../replica/replica.js';
import { planRestore } from '../plan.js';

/** More are fetched by merging whole files. */
const MOST_PAGES = 4096;
/** And so are pages of a file whose index is too large to be held: about 12 bytes a page. */
const MOST_INDEXED = 8 * 1024 * 1024;

export class ReplicaPages {
  readonly #replica: Replica;
  readonly #txid: bigint;
  /** Newest first. */
  #files: LtxFileInfo[] | undefined;
  readonly #indexes = new Map<LtxFileInfo, PageIndex>();
  #indexed = 0;
  #left = MOST_PAGES;

  /** Of the state of `txid`, which must be in the replica when the first page is asked for. */
  constructor(replica: Replica, txid: bigint) {
    this.#replica = replica;
    this.#txid = txid;
  }

  /**
   * Puts page `pgno` into `page`; false if no file has it, or if it is one page too many.
   * @throws JetliteError NOT_FOUND if the files are gone or do not lead there, FORMAT if one is damaged
   */
  async read(pgno: number, page: Uint8Array): Promise<boolean> {
    if (this.#left-- <= 0) return false;
    this.#files ??= [
      ...planRestore(await this.#replica.list(), { kind: 'txid', txid: this.#txid }).files,
    ].reverse();
    for (const file of this.#files) {
      const index = await this.#indexOf(file);
      if (index === undefined) return false;
      const place = index.find(pgno);
      if (place === undefined) continue;
      if (index.header.pageSize !== page.length) return false;
      decodePage(await this.#range(file, place.offset, place.length), pgno, page, ltxPath(file));
      return true;
    }
    return false;
  }

  async #indexOf(file: LtxFileInfo): Promise<PageIndex | undefined> {
    let index = this.#indexes.get(file);
    if (index !== undefined) return index;
    if (this.#indexed > MOST_INDEXED) return undefined;
    const range = (offset: number, length: number): Promise<Uint8Array> => this.#range(file, offset, length);
    index = await readPageIndex(range, file.size, ltxPath(file));
    this.#indexed += index.pgnos.length;
    this.#indexes.set(file, index);
    return index;
  }

  async #range(file: LtxFileInfo, offset: number, length: number): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    for await (const part of this.#replica.read(file, { offset, length })) parts.push(part.slice());
    return Buffer.concat(parts);
  }
}
