/**
 * Which pages an LTX file may hold, and in which order: ascending page numbers up to the commit, never the lock
 * page; in a snapshot every one of them. The encoder and the decoder hold each page against the same rule.
 */

import { FormatError } from '../errors.js';
import { lockPage } from '../sqlite/database.js';
import { isSnapshot, type LtxHeader } from './header.js';

export class PageOrder {
  readonly #name: string;
  readonly #commit: number;
  readonly #snapshot: boolean;
  readonly #lockPage: number;
  #last = 0;

  /** `name` is the file's, for messages. */
  constructor(header: LtxHeader, name: string) {
    this.#name = name;
    this.#commit = header.commit;
    this.#snapshot = isSnapshot(header);
    this.#lockPage = lockPage(header.pageSize);
  }

  /** Takes the next page's number. Throws FormatError if the page may not stand here. */
  take(pgno: number): void {
    if (pgno !== pgno >>> 0 || pgno <= this.#last || pgno > this.#commit) this.#refuse(pgno);
    if (pgno === this.#lockPage) this.#refuse(pgno);
    if (this.#snapshot && pgno !== this.#after(this.#last)) this.#refuse(pgno);
    this.#last = pgno;
  }

  /** Says that no page follows. Throws FormatError if a snapshot lacks pages. */
  finish(): void {
    const next = this.#after(this.#last);
    if (this.#snapshot && next <= this.#commit) {
      throw new FormatError(
        this.#name,
        `expected every page up to ${this.#commit} in a snapshot, found the end before page ${next}`,
      );
    }
  }

  #after(pgno: number): number {
    return pgno + 1 === this.#lockPage ? pgno + 2 : pgno + 1;
  }

  #refuse(pgno: number): never {
    const where = `${this.#name}, page ${pgno}`;
    if (!Number.isInteger(pgno) || pgno < 1) throw new FormatError(where, 'expected a page number from 1');
    if (pgno > this.#commit) {
      throw new FormatError(where, `expected pages up to ${this.#commit}, where the database ends`);
    }
    if (pgno === this.#lockPage)
      throw new FormatError(where, 'expected no lock page in an LTX file, found it');
    if (pgno <= this.#last) {
      throw new FormatError(where, `expected ascending page numbers, found it after page ${this.#last}`);
    }
    throw new FormatError(where, `expected page ${this.#after(this.#last)}: a snapshot has every page`);
  }
}
