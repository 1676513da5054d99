/**
 * What an LTX file must hold, given the state of the database that it is laid over. The decoder has seen to what a file
 * says of itself; this is about what it says of the database, so that files of another database, files that a writer left
 * incomplete and numbers made up to harm are found before a restored database gets its name.
 *
 * 1. A file that makes the database grow holds every page it grows by, but the lock page. So a database is never larger
 *    than the pages that were really there.
 * 2. Page 1 says the page size and, where SQLite itself would believe it, the size in pages. Both are the file's own.
 * 3. SQLite writes page 1 with every change of size, so a state whose size page 1 does not know is mixed from several.
 *
 * A page 1 that does not begin as SQLite's do (an encrypted database) says nothing, and 2 and 3 do not apply.
 */

import { FormatError } from '../../errors.js';
import { formatTxid, type LtxHeader } from '../../ltx/header.js';
import { ltxPath } from '../../replica/names.js';
import type { LtxFileInfo } from '../../replica/replica.js';
import { type DatabaseHeader, decodeDatabaseHeader, lockPage } from '../../sqlite/database.js';

const MIXED = 'Files of two databases stand in this replica, or one of them is damaged.';
const INCOMPLETE = 'Whoever wrote the file left pages out.';

/** Follows a database through its files: `begin`, `page` for each in order, `end`; a file broken off begins anew. */
export class StateCheck {
  /** Size of the state before the file, in pages. */
  #before = 0;
  #pageSize = 0;
  /** What page 1 says of the size; undefined where it does not say. */
  #sizeByPageOne: number | undefined;
  #name = '';
  #header!: LtxHeader;
  /** The next page that the database grows by. */
  #nextGrown = 1;
  #lockPage = 0;
  /** Whether a page 1 is there that nobody has shown. */
  #isPageOneUnseen = false;

  /** `state`: what the first file is laid over, if not nothing; what its page 1 says is then not known. */
  constructor(state?: { readonly pageCount: number; readonly pageSize: number }) {
    if (state === undefined) return;
    this.#before = state.pageCount;
    this.#pageSize = state.pageSize;
    this.#isPageOneUnseen = true;
  }

  /** Throws FormatError if `header` is not that of `file`, or of a database with other pages. */
  begin(file: LtxFileInfo, header: LtxHeader): void {
    this.#name = ltxPath(file);
    this.#header = header;
    if (header.minTxid !== file.minTxid || header.maxTxid !== file.maxTxid) {
      const found = `${formatTxid(header.minTxid)} to ${formatTxid(header.maxTxid)}`;
      throw new FormatError(this.#name, `expected the TXIDs of its name, found ${found} in its header`);
    }
    if (this.#pageSize !== 0 && header.pageSize !== this.#pageSize) {
      throw new FormatError(
        this.#name,
        `expected pages of ${this.#pageSize} bytes as in the files before it, found ${header.pageSize}`,
        { hint: 'Files of two databases stand in this replica.' },
      );
    }
    this.#pageSize = header.pageSize;
    this.#lockPage = lockPage(header.pageSize);
    this.#nextGrown = this.#after(this.#before);
  }

  /** Throws FormatError if the page cannot be this database's. */
  page(pgno: number, page: Uint8Array): void {
    if (pgno === 1) this.#pageOne(page);
    if (pgno <= this.#before) return;
    if (pgno !== this.#nextGrown) this.#refuseHole();
    this.#nextGrown = this.#after(pgno);
  }

  /**
   * Says that the file has ended, sound by itself. Throws FormatError if it cannot have led to a state of the database, or
   * only a page 1 that was not seen could tell.
   */
  end(): void {
    const { commit } = this.#header;
    if (this.#nextGrown <= commit) this.#refuseHole();
    if (this.#isPageOneUnseen && commit !== this.#before) throw noPageOne(this.#name, commit, this.#before);
    const said = this.#sizeByPageOne;
    if (said !== undefined && said !== commit) throw noPageOne(this.#name, commit, said);
    this.#before = commit;
  }

  #pageOne(page: Uint8Array): void {
    this.#isPageOneUnseen = false;
    this.#sizeByPageOne = expectPageOne(this.#name, page, this.#header);
  }

  #refuseHole(): never {
    const { commit } = this.#header;
    throw new FormatError(
      `${this.#name}, page ${this.#nextGrown}`,
      `expected every page from ${this.#after(this.#before)} to ${commit}, by which the database grew, found this one missing`,
      { hint: INCOMPLETE },
    );
  }

  #after(pgno: number): number {
    return pgno + 1 === this.#lockPage ? pgno + 2 : pgno + 1;
  }
}

/**
 * The same rules for files that are read in another order than the database went through: `begin`, `page` and `end` for
 * each, then `expectSteps` with the files in the order of their transactions.
 */
export class StepChecks {
  readonly #steps = new Map<LtxFileInfo, Step>();
  #step!: Step;

  begin(file: LtxFileInfo, { commit, pageSize }: Pick<LtxHeader, 'commit' | 'pageSize'>): void {
    const after = commit + 1 === lockPage(pageSize) ? commit + 2 : commit + 1;
    this.#step = { commit, pageSize, runFrom: after, next: 0, pageOne: false, sizeByPageOne: undefined };
    this.#steps.set(file, this.#step);
  }

  /** Throws FormatError if page 1 says that it is of another database than the file's header says. */
  page(file: LtxFileInfo, pgno: number, page: Uint8Array): void {
    const step = this.#step;
    if (pgno !== step.next) step.runFrom = pgno;
    step.next = pgno + 1 === lockPage(step.pageSize) ? pgno + 2 : pgno + 1;
    if (pgno !== 1) return;
    step.pageOne = true;
    step.sizeByPageOne = expectPageOne(ltxPath(file), page, step);
  }

  /**
   * `state`: what the first file is laid over, with its page 1. Throws FormatError for a file that grew the database
   * without the pages, or changed its size without page 1.
   */
  expectSteps(
    files: readonly LtxFileInfo[],
    state: { readonly pageCount: number; readonly pageOne?: Uint8Array },
  ): void {
    let before = state.pageCount;
    let isKnown = state.pageOne !== undefined && saidSize(sqliteHeader(state.pageOne)) !== undefined;
    for (const file of files) {
      const { commit, pageSize, runFrom, next, pageOne, sizeByPageOne } = this.#steps.get(file)!;
      const first = before + 1 === lockPage(pageSize) ? before + 2 : before + 1;
      const isWhole = next > commit ? runFrom <= first : first > commit;
      if (!isWhole) {
        throw new FormatError(
          ltxPath(file),
          `expected every page from ${first} to ${commit}, by which the database grew, found some missing`,
          { hint: INCOMPLETE },
        );
      }
      if (pageOne) isKnown = sizeByPageOne !== undefined;
      else if (isKnown && commit !== before) throw noPageOne(ltxPath(file), commit, before);
      before = commit;
    }
  }
}

interface Step {
  readonly commit: number;
  readonly pageSize: number;
  /** The first page of the run of pages that the last one ended, and the page after that run. */
  runFrom: number;
  next: number;
  pageOne: boolean;
  sizeByPageOne: number | undefined;
}

/** The size in pages that page 1 says, undefined where it does not say. Throws FormatError if it contradicts the file. */
function expectPageOne(
  name: string,
  page: Uint8Array,
  { pageSize, commit }: { readonly pageSize: number; readonly commit: number },
): number | undefined {
  const header = sqliteHeader(page);
  if (header === undefined) return undefined;
  const found = (what: string): FormatError =>
    new FormatError(`${name}, page 1`, `expected the header of a database ${what}`, { hint: MIXED });
  if (header.pageSize !== pageSize) throw found(`with pages of ${pageSize} bytes, found ${header.pageSize}`);
  const said = saidSize(header);
  if (said !== undefined && said !== commit) throw found(`of ${commit} pages, found ${said}`);
  return said;
}

/** The size in pages that a header says, where SQLite itself would believe it. */
function saidSize(header: DatabaseHeader | undefined): number | undefined {
  if (header === undefined || header.pageCount === 0) return undefined;
  return header.changeCounter === header.versionValidFor ? header.pageCount : undefined;
}

function noPageOne(name: string, commit: number, said: number): FormatError {
  return new FormatError(
    name,
    `expected page 1 beside a change of size, found a database of ${commit} pages whose page 1 says ${said}`,
    { hint: MIXED },
  );
}

/** What page 1 says, undefined if it is none that SQLite would open. */
function sqliteHeader(page: Uint8Array): DatabaseHeader | undefined {
  try {
    return decodeDatabaseHeader(page);
  } catch (error) {
    if (error instanceof FormatError) return undefined;
    throw error;
  }
}
