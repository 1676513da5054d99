/**
 * A database file that others read with SQLite while batches are added to it.
 *
 * This process is the copy's only writer and takes no lock: it appends each batch to the copy's `-wal` as frames, the last
 * one marked as a commit, and then overwrites the header of the `-shm` with zeros, so that the next reader rebuilds that.
 *
 * 1. The database file is only changed by a checkpoint of our own, and only by one before which the index was seen to end
 *    where our last commit does: a reader that began to rebuild the index earlier may have published an older end, and a
 *    checkpoint by that one would cut off what lies behind it.
 * 2. Where the WAL is not what it was left as (a reader that could write was the last to close and removed it, or cut it),
 *    what was in it may be in the database file, in part or whole, and so may be what that reader wrote itself. Then the
 *    whole database goes in again as *one* commit, of a state at least as new as any that a reader may have seen:
 *    `mustMend`.
 * 3. Commits in the WAL that are not ours, or an index that ends where none of ours did, are another writer's: it ends here.
 * 4. WAL and index are a pair. Where somebody took the name of one away, the other's goes, too, or both files that had it
 *    are zeroed; those who have an old one open read on, and the database is not changed under them.
 * 5. Page 1 always says that the database is in WAL mode, whatever its source does.
 */

import { randomUUID } from 'node:crypto';
import fs from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { readFully, statPath } from '../capture/files.js';
import { openHandle, releaseHandle } from '../capture/handles.js';
import { readersElsewhere } from '../capture/locks.js';
import { bootId } from '../capture/resume-state.js';
import { ConflictError, JetliteError } from '../errors.js';
import { compareReplicas } from '../replica/same-replica.js';
import { DATABASE_HEADER_SIZE, decodeDatabaseHeader } from '../sqlite/database.js';
import { CopyIndex } from './copy-index.js';
import { type CopyIdentity, type CopyPosition, CopyState, type RecordedCopy } from './copy-state.js';
import { CopyWal, isSameEnd, NO_FRAMES, type WalCommit } from './copy-wal.js';
import type { Guard } from './guard.js';

const ANEW = 'Restore it anew with --force; those who read it should open it with mode=ro.';
/** Tries to bring the index to our end before a checkpoint. */
const SETTLE_TRIES = 20;
/** Looks at who reads before one is believed to use another index than ours, and the time between two. */
const OPENING_LOOKS = 4;
const OPENING_MS = 10;

/** A batch on its way into the copy; see WalCommit. */
export class CopyBatch {
  readonly #commit: WalCommit;
  readonly #finish: (commit: WalCommit, to: BatchEnd) => void;

  constructor(commit: WalCommit, finish: (commit: WalCommit, to: BatchEnd) => void) {
    this.#commit = commit;
    this.#finish = finish;
  }

  add(pgno: number, page: Uint8Array): void {
    const copy = this.#commit.add(pgno, page);
    if (pgno === 1) markAsWal(copy);
  }

  /** Makes the batch the state of the copy. Throws what the file system refused; the copy then stands where it stood. */
  finish(to: BatchEnd): void {
    this.#finish(this.#commit, to);
  }
}

export interface BatchEnd {
  readonly txid: bigint;
  readonly timestampMs: number;
  /** Size of the database in pages. */
  readonly pageCount: number;
}

/** Makes page 1, or the beginning of it, say that readers and writers use a WAL. Throws FormatError if it is none of SQLite's. */
export function markAsWal(page: Uint8Array): void {
  decodeDatabaseHeader(page.subarray(0, DATABASE_HEADER_SIZE));
  page[18] = 2;
  page[19] = 2;
}

export class LiveCopy {
  readonly path: string;
  readonly #state: CopyState;
  readonly #wal: CopyWal;
  readonly #index: CopyIndex;
  readonly #inode: string;
  #position: CopyPosition;
  #pageCount = 0;
  #mustMend = false;
  #settled = false;
  #walChanges = 0;

  private constructor(path: string, state: CopyState, identity: CopyIdentity, position: CopyPosition) {
    this.path = path;
    this.#state = state;
    this.#position = position;
    const { walMode, indexMode } = modesOf(path);
    this.#index = new CopyIndex(`${path}-shm`);
    this.#index.create(indexMode);
    this.#wal = new CopyWal(`${path}-wal`, identity.pageSize, walMode);
    this.#inode = identity.inode;
    this.#share();
  }

  /**
   * Before a restored database gets its name: makes its page 1 fit and writes down that it is ours, so that a kill at any
   * moment from here on leaves a copy that can be gone on with. A `-shm` without a database goes.
   */
  static prepare(
    path: string,
    fd: number,
    statePath: string,
    restored: Omit<CopyIdentity, 'inode'> & BatchEnd,
  ): void {
    const { replica, pageSize, txid, timestampMs } = restored;
    const head = new Uint8Array(DATABASE_HEADER_SIZE);
    fs.readSync(fd, head, 0, head.length, 0);
    markAsWal(head);
    fs.writeSync(fd, head, 0, head.length, 0);
    if (statPath(path) === undefined) fs.rmSync(`${path}-shm`, { force: true });
    const found = fs.fstatSync(fd, { bigint: true });
    const inode = found.ino.toString();
    const state = new CopyState(statePath);
    state.read();
    const position = { txid, timestampMs, end: NO_FRAMES, file: stampOf(found) };
    state.begin({ replica, inode, pageSize }, position);
    state.close();
  }

  /**
   * The copy at a path, if the state beside it says that it is one. Undefined: the database is none of ours.
   * @throws JetliteError CONFLICT if another program has written it, OUTPUT if it follows another replica
   */
  static open(path: string, statePath: string, replica: string): LiveCopy | undefined {
    const found = statPath(path);
    const state = new CopyState(statePath);
    const recorded = state.read();
    if (found === undefined || recorded === undefined || recorded.identity.inode !== found.ino.toString())
      return undefined;
    const { identity, positions } = recorded;
    if (compareReplicas(identity.replica, replica) !== 'same') {
      throw new JetliteError('OUTPUT', `${path} follows ${identity.replica}, not ${replica}`, {
        hint: 'Choose another output path, or use --force to replace it.',
      });
    }
    state.follow(replica);
    const copy = new LiveCopy(path, state, identity, positions[0]);
    try {
      copy.#resume(recorded);
    } catch (error) {
      copy.close();
      throw error;
    }
    return copy;
  }

  get pageSize(): number {
    return this.#wal.pageSize;
  }

  get txid(): bigint {
    return this.#position.txid;
  }

  get timestampMs(): number {
    return this.#position.timestampMs;
  }

  /** Bytes of the WAL that are in use. */
  get walSize(): number {
    return this.#wal.end.frame === 0 ? 0 : this.#wal.size;
  }

  /** Whether the next batch must hold the whole database. */
  get mustMend(): boolean {
    return this.#mustMend;
  }

  /** Whether the index was seen to end where the last commit does; until then it should be looked at often. */
  get isSettled(): boolean {
    return this.#settled;
  }

  /** Another number when WAL or index are other files than before: who has the copy open must open it anew. */
  get pair(): number {
    return this.#walChanges + this.#index.changes;
  }

  /** Looks whether all is as it was left. Throws CONFLICT if another program writes the copy. */
  check(): void {
    if (statPath(this.path)?.ino.toString() !== this.#inode) {
      throw new ConflictError(`another file stands at ${this.path} than the live copy that was there`, {
        hint: 'Restore it anew with --force, or choose another output path.',
      });
    }
    if (!this.#wal.isInPlace()) this.#examine();
    this.#lookAtIndex();
    this.#share();
  }

  /** Begins a batch behind the last one. Call `check` before it. */
  begin(): CopyBatch {
    return new CopyBatch(this.#wal.begin(), (commit, to) => this.#finish(commit, to));
  }

  /** A page as it stands; zeros beyond the end. Looks through the WAL: for a few pages only. */
  page(pgno: number): Uint8Array {
    const inWal = this.#wal.page(pgno);
    if (inWal !== undefined) return inWal;
    const page = new Uint8Array(this.pageSize);
    const file = openHandle(this.path);
    readFully(file.fd, page, page.length, (pgno - 1) * this.pageSize);
    releaseHandle(file);
    return page;
  }

  get pageCount(): number {
    return this.#pageCount;
  }

  /** Empties the WAL into the database, if readers let it within the time given. */
  async checkpoint(guard: Guard, patienceMs: number): Promise<boolean> {
    const { pair } = this;
    if (!(await this.#settle(guard)) || this.pair !== pair || (await this.#isReadElsewhere())) return false;
    const { txid, timestampMs } = this.#position;
    this.#state.write({ txid, timestampMs, end: NO_FRAMES, emptied: identityOf(this.#wal.fd) });
    if (!(await guard.checkpoint(patienceMs))) return false;
    if (fs.statSync(this.#wal.path).size !== 0) return false;
    this.#wal.reopen(modesOf(this.path).walMode);
    this.#wal.startOver();
    this.#putEmptied();
    return true;
  }

  close(): void {
    this.#wal.close();
    this.#index.close();
    this.#state.close();
  }

  /** Whether the index ends where our last commit does, and nothing can make it end elsewhere until we append again. */
  async #settle(guard: Guard): Promise<boolean> {
    for (let tries = 0; tries < SETTLE_TRIES; tries++) {
      await guard.turn();
      this.check();
      if (this.#mustMend) return false;
      if (this.#index.look(this.#wal) === 'ours') return true;
    }
    return false;
  }

  /** Whether somebody reads by an index that has lost its name: no checkpoint would wait for those. */
  async #isReadElsewhere(): Promise<boolean> {
    const { file } = this.#index;
    if (file === undefined) return true;
    const database = openHandle(this.path);
    let seen = readersElsewhere(database, file);
    for (let looks = 1; seen.length > 0 && looks < OPENING_LOOKS; looks++) {
      // Whoever is just opening the copy is not there the next time, or has the index.
      await delay(OPENING_MS);
      const again = readersElsewhere(database, file);
      seen = seen.filter((pid) => again.includes(pid));
    }
    releaseHandle(database);
    return seen.length > 0;
  }

  #finish(commit: WalCommit, { txid, timestampMs, pageCount }: BatchEnd): void {
    // A batch that changes nothing but the size.
    if (commit.isEmpty) commit.add(1, this.page(1));
    let next: CopyPosition | undefined;
    commit.finish(pageCount, (end) => {
      next = { txid, timestampMs, end };
      this.#state.write(next);
    });
    this.#index.invalidate();
    this.#settled = false;
    this.#mustMend = false;
    this.#pageCount = pageCount;
    this.#position = next!;
    this.#state.confirm();
    this.check();
  }

  #putEmptied(): void {
    const { txid, timestampMs } = this.#position;
    const file = stampOf(fs.statSync(this.path, { bigint: true }));
    this.#position = { txid, timestampMs, end: NO_FRAMES, file };
    this.#state.write(this.#position);
    this.#state.confirm();
  }

  /** Where the copy stands after this process, or the one before, was cut off. */
  #resume({ positions }: RecordedCopy): void {
    const end = this.#wal.scan();
    this.#pageCount = this.#wal.pageCount || fs.statSync(this.path).size / this.pageSize;
    // That there is nothing in the WAL says something only where nothing should be: else a reader has removed it.
    const which = positions.findIndex(
      (position, i) =>
        isSameEnd(position.end, end) &&
        (i === 0 || end.frame > 0) &&
        (position.emptied === undefined || position.emptied === identityOf(this.#wal.fd)),
    );
    if (which !== -1) {
      this.#position = positions[which];
      this.#state.choose(which);
      if (this.#position.emptied === undefined) this.#expectUntouched();
      else this.#putEmptied();
    } else {
      this.#expectOurs(positions);
      this.#mustMend = true;
    }
    // Whoever is connected may have an older end; whoever is not connected left one that says nothing.
    if (end.frame > 0) this.#index.invalidate();
  }

  /** The file at the path is not what was left there. */
  #examine(): void {
    if (this.#wal.reopen(modesOf(this.path).walMode)) {
      this.#walChanges++;
      this.#index.leaveWith();
    }
    const left = this.#position;
    const end = this.#wal.scan();
    if (isSameEnd(end, left.end)) {
      this.#expectUntouched();
      return;
    }
    this.#expectOurs([left]);
    this.#mustMend = true;
  }

  /** Throws CONFLICT unless the WAL, just scanned, holds nothing but what is left of ours. */
  #expectOurs(positions: readonly CopyPosition[]): void {
    const { end } = this.#wal;
    const isRest = positions.some(
      ({ end: ours }) => ours.salt1 === end.salt1 && ours.salt2 === end.salt2 && end.frame < ours.frame,
    );
    if (end.frame === 0 || isRest) return;
    throw this.#foreign(`its WAL holds a commit that is not from here, at frame ${end.frame}`);
  }

  /** Where there is nothing in the WAL, nobody but a writer had a reason to change the database file. */
  #expectUntouched(): void {
    const { end, file } = this.#position;
    if (end.frame > 0 || file === undefined) return;
    if (stampOf(fs.statSync(this.path, { bigint: true })) === file) return;
    throw this.#foreign('the database file has changed');
  }

  #lookAtIndex(): void {
    if (this.#mustMend) return;
    this.#index.lookAtFormer(this.#wal);
    const state = this.#index.look(this.#wal);
    this.#settled = state === 'ours';
    if (state === 'foreign') {
      const expected = this.#position.end;
      if (!isSameEnd(this.#wal.scan(), expected)) {
        this.#expectOurs([this.#position]);
        this.#mustMend = true;
        return;
      }
    }
    if ((state === 'older' || state === 'foreign') && this.#wal.end.frame > 0) this.#index.invalidate();
  }

  #foreign(what: string): ConflictError {
    return new ConflictError(`another program has written the live copy ${this.path}: ${what}`, {
      hint: ANEW,
    });
  }

  /** Readers of other users need to write the index, and nothing else. */
  #share(): void {
    const { walMode, indexMode } = modesOf(this.path);
    this.#index.create(indexMode);
    setMode(this.#wal.fd, walMode);
    const { file } = this.#index;
    if (file !== undefined) setMode(file.fd, indexMode);
  }
}

function stampOf({ size, mtimeNs }: fs.BigIntStats): string {
  return `${size} bytes, ${mtimeNs} ns`;
}

/** Names a file for as long as the machine runs: after a crash an empty one may only have lost what was in it. */
function identityOf(fd: number): string {
  const { ino, birthtimeNs } = fs.fstatSync(fd, { bigint: true });
  return `${ino}, made ${birthtimeNs} ns, boot ${bootId() ?? randomUUID()}`;
}

/** Whoever may read the database may read the WAL, and read and write the index. */
function modesOf(path: string): { walMode: number; indexMode: number } {
  const mode = fs.statSync(path).mode & 0o777;
  return { walMode: mode & ~0o022, indexMode: mode | ((mode & 0o444) >> 1) };
}

function setMode(fd: number, mode: number): void {
  if ((fs.fstatSync(fd).mode & 0o777) === mode) return;
  try {
    fs.fchmodSync(fd, mode);
  } catch (error) {
    // A reader's own file: it has seen to itself.
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') throw error;
  }
}
