/**
 * Follows the commits of a WAL database as they appear, and proves that none is missing.
 *
 * Invariants:
 * 1. Only committed frames are handed on: those up to the *commit horizon*, read from the governing `-shm` header, or,
 *    where none governs, found as the last commit frame for which the WAL's own checksum chain holds.
 * 2. Within a generation (the life of a WAL between restarts, named by its salts) the chain proves that every frame is
 *    seen, in order. Frames up to the horizon never change until new salts are published.
 * 3. Across a restart nothing is lost if the commits counted since the position are as many as the header's counter
 *    has grown, within one epoch (change-count.ts). A restart adds 1 to the first salt, so with exactly that step the
 *    old generation's last commits are still taken from behind the position, as many as the counter says and no more.
 *    A frame that repeats the one before, bytes and all, is the padding of a commit to a disk sector, and is not counted;
 *    unless in this epoch such frames were seen to be counted by the index, and never not to be: then they are commits
 *    that changed nothing. Counting one too few costs a resync, one too many would hide a loss.
 * 4. A horizon behind the position, or another checksum at it, means that history was rewound: that is a gap.
 * 5. Every re-read is bounded. What cannot be proven ends as a gap, and a gap is answered by comparing pages.
 * 6. A commit that lies beyond a header which stays as it is is no commit as long as that header may govern: its writer
 *    may have died before publishing it. Two such commits prove that nobody publishes here any more.
 */

import { performance } from 'node:perf_hooks';
import { setTimeout as delay, setImmediate as turn } from 'node:timers/promises';
import type { WalHeader } from '../sqlite/wal.js';
import type { WalIndexHeader } from '../sqlite/wal-index.js';
import {
  type BeforeReading,
  beforeReading,
  type CountReading,
  commitsBetween,
  isSameEpoch,
  reading,
} from './change-count.js';
import type { FileEvents } from './file-events.js';
import { type OpenFile, stampOf } from './files.js';
import { type ChainPosition, FrameReader, type FrameVisitor, generationStart } from './frame-reader.js';
import { databaseIsExclusive, indexIsInUse } from './locks.js';
import { viewWal, type WalView } from './wal-view.js';

/** The WAL and index to follow, and the database they belong to. */
export interface WalPair {
  readonly database: OpenFile;
  readonly wal: OpenFile;
  readonly shm: OpenFile | undefined;
}

/** Where frames go. */
export interface FrameSink {
  /** One frame's page: copy it. */
  page(pgno: number, bytes: Uint8Array, offset: number): void;
  /** The frames since the last commit are a commit; the database has `pageCount` pages now. False: stop here. */
  commit(pageCount: number): boolean;
}

export type FollowOutcome =
  /** Everything up to the horizon is handed on. */
  | { readonly state: 'current'; readonly commits: number }
  /** There is more; call again. */
  | { readonly state: 'more'; readonly commits: number }
  /** A change is half done; call again soon. */
  | { readonly state: 'wait'; readonly commits: number; readonly why: string }
  /** Commits may be missing: what the sink got since its last emptying is worthless. */
  | { readonly state: 'gap'; readonly reason: string };

type Step = 'current' | 'more' | 'again' | { readonly gap: string } | { readonly wait: string };

const LOOKS = 8;
/** Chunks read before the event loop gets its turn. */
const CHUNKS_A_TURN = 8;
/** A half-changed header that stays so for this long belongs to a writer that is gone. */
const ABANDONED_MS = 2000;
const STALE_CHECK_MS = 500;

/** Stands behind no frame: the database file itself is the position. */
const NOWHERE: ChainPosition = {
  salt1: -1,
  salt2: -1,
  pageSize: 0,
  bigEndianChecksum: false,
  frame: 0,
  checksum1: 0,
  checksum2: 0,
};

export class Follower {
  /** Size in pages after the last commit handed on; 0 if none was. */
  pageCount = 0;
  /** Size in pages as the index gave it at the last look; 0 if it did not say. */
  indexPageCount = 0;
  /** Restarts crossed with proof. */
  restarts = 0;
  /** A commit stands beyond a header that may govern: not taken, not refuted. */
  undecided = false;
  readonly #pageSize: number;
  readonly #events: FileEvents;
  /** Undefined: begin with the first frame of whatever generation is live. */
  #position: ChainPosition | undefined;
  #counted: CountReading | undefined;
  #reader: FrameReader | undefined;
  #changing: { readonly key: string; readonly sinceMs: number } | undefined;
  #commitsBefore = 0;
  /** What repeated frames were seen to be in this epoch; undefined while none were. */
  #repeats: 'commits' | 'padding' | undefined;
  /** The last horizon reached, and the counts there. */
  #horizon:
    | {
        readonly reader: FrameReader;
        readonly count: number;
        readonly commits: number;
        readonly repeats: number;
      }
    | undefined;
  #staleIndex: string | undefined;
  #staleCheckedAt = 0;
  #staleCheckedWal = '';

  constructor(pageSize: number, events: FileEvents) {
    this.#pageSize = pageSize;
    this.#events = events;
  }

  get position(): ChainPosition | undefined {
    return this.#position;
  }

  get counted(): CountReading | undefined {
    return this.#counted;
  }

  /** Forgets the position: the next poll hands on the live generation from its first frame. */
  restart(): void {
    this.#position = undefined;
    this.#counted = undefined;
    this.#reader = undefined;
    this.#commitsBefore = 0;
    this.#repeats = undefined;
    this.#horizon = undefined;
    this.pageCount = 0;
  }

  /** Goes on from a position known from before. */
  resume(position: ChainPosition, counted: CountReading | undefined, pageCount: number): void {
    this.#moveTo(position);
    this.#counted = counted;
    this.pageCount = pageCount;
  }

  /** Hands on what was committed since the last call, up to where the sink says stop. */
  async poll(pair: WalPair, sink: FrameSink): Promise<FollowOutcome> {
    let commits = 0;
    let why = 'the WAL changes faster than it can be read';
    const visit: FrameVisitor = (pgno, commit, chunk, at) => {
      sink.page(pgno, chunk, at);
      if (commit === 0) return true;
      commits++;
      this.pageCount = commit;
      return sink.commit(commit);
    };
    let broken = false;
    for (let look = 0; look < LOOKS; look++) {
      if (look > 2) await delay(look);
      broken = false;
      const before = pair.shm === undefined ? undefined : await beforeReading(pair.shm, this.#events);
      const view = this.#judge(viewWal(pair.wal, pair.shm));
      if (view.kind === 'changing') {
        why = view.why;
        continue;
      }
      this.indexPageCount = 'index' in view && view.kind !== 'ungoverned' ? (view.index?.pageCount ?? 0) : 0;
      const step = await this.#follow(pair, view, before, visit, look === LOOKS - 1);
      broken = step === 'again';
      if (step === 'again') continue;
      if (typeof step === 'object') {
        if ('gap' in step) return { state: 'gap', reason: step.gap };
        return { state: 'wait', commits, why: step.wait };
      }
      return { state: step, commits };
    }
    const frame = this.#reader?.frame ?? this.#position?.frame ?? 0;
    if (broken || (this.#reader !== undefined && frame !== this.#position?.frame)) {
      return { state: 'gap', reason: `the checksum chain is broken behind frame ${frame}` };
    }
    return { state: 'wait', commits, why };
  }

  /** Takes a header that was abandoned, or proven stale, for what it is: no header. */
  #judge(view: WalView): WalView {
    if (view.kind === 'changing') {
      if (this.#changing?.key !== view.key) this.#changing = { key: view.key, sinceMs: performance.now() };
      const abandoned = performance.now() - this.#changing.sinceMs > ABANDONED_MS;
      if (!abandoned) return view;
      return view.wal === undefined
        ? { kind: 'empty', index: undefined }
        : { kind: 'ungoverned', wal: view.wal, index: undefined };
    }
    this.#changing = undefined;
    if (view.kind === 'governed' || view.kind === 'restarted') {
      if (this.#staleIndex === indexKey(view.index)) {
        return { kind: 'ungoverned', wal: view.wal, index: view.index };
      }
      this.#staleIndex = undefined;
    }
    return view;
  }

  async #follow(
    pair: WalPair,
    view: Exclude<WalView, { kind: 'changing' }>,
    before: BeforeReading | undefined,
    visit: FrameVisitor,
    isLastLook: boolean,
  ): Promise<Step> {
    switch (view.kind) {
      case 'unreadable':
        throw view.error;
      case 'empty':
        return this.#followEmpty(pair, view.index, before);
      case 'ungoverned':
        return this.#followUngoverned(pair, view.wal, visit);
      case 'restarted':
        return this.#followRestarted(pair, view.index, view.wal, before!, visit, isLastLook);
      case 'governed':
        return this.#followGoverned(pair, view.index, view.wal, before!, visit);
    }
  }

  async #followGoverned(
    pair: WalPair,
    index: WalIndexHeader,
    wal: WalHeader,
    before: BeforeReading,
    visit: FrameVisitor,
  ): Promise<Step> {
    if (wal.pageSize !== this.#pageSize) return { gap: this.#pageSizeChanged(wal) };
    if (this.#position === undefined) this.#moveTo(generationStart(wal));
    else if (!isGeneration(this.#position, wal)) {
      const crossed = await this.#cross(pair, index, wal, visit);
      if (crossed !== 'crossed') return crossed;
    }
    const position = this.#position!;
    if (index.maxFrame < position.frame) {
      return { gap: `the WAL ends at frame ${index.maxFrame}, before the position ${position.frame}` };
    }
    if (index.maxFrame > position.frame) {
      const read = await this.#readTo(pair, index.maxFrame, visit, index);
      if (read !== 'reached') return read;
    }
    if (
      index.maxFrame > 0 &&
      (index.frameChecksum1 !== this.#position!.checksum1 ||
        index.frameChecksum2 !== this.#position!.checksum2)
    ) {
      return { gap: `the checksum at frame ${index.maxFrame} is not the one the index gives` };
    }
    this.#learnRepeats(index.changeCount);
    this.#counted = reading(before, index.changeCount);
    return (await this.#looksStale(pair, index)) ? 'again' : 'current';
  }

  /** Compares what was read since the last horizon in this generation with what the index counted meanwhile. */
  #learnRepeats(count: number): void {
    const reader = this.#reader;
    if (reader === undefined) return;
    const last = this.#horizon;
    if (last !== undefined && last.reader === reader && reader.repeats > last.repeats) {
      const all = reader.commits - last.commits + reader.repeats - last.repeats;
      const counted = commitsBetween(last.count, count) === all;
      this.#repeats = counted && this.#repeats !== 'padding' ? 'commits' : 'padding';
    }
    this.#horizon = { reader, count, commits: reader.commits, repeats: reader.repeats };
    this.#commitsBefore = this.#countOf(reader);
  }

  #countOf(reader: FrameReader): number {
    return this.#repeats === 'commits' ? reader.commits + reader.repeats : reader.commits;
  }

  async #followRestarted(
    pair: WalPair,
    index: WalIndexHeader,
    wal: WalHeader,
    before: BeforeReading,
    visit: FrameVisitor,
    isLastLook: boolean,
  ): Promise<Step> {
    if (this.#position === undefined) {
      if ((await lastCommit(pair.wal, generationStart(wal))).commits > 0) {
        // Usually the next look finds the new generation. If the header stays and governs, all frames are in the
        // database, and laying them over it again changes nothing; if it is stale, they are needed. Either way the
        // frames are right, only the position behind them is not proven.
        return isLastLook ? this.#followUngoverned(pair, wal, visit) : 'again';
      }
      // The first transaction of a generation is being written: its header is there, its commit is not.
      this.#moveTo(NOWHERE);
      this.#counted = reading(before, index.changeCount);
      return 'current';
    }
    if (this.#counted !== undefined && isGeneration(this.#position, wal)) {
      const needed = await this.#missing(pair, index, 0);
      if (typeof needed !== 'number') return needed;
      const tail = await this.#readTail(pair.wal, needed, visit);
      if (tail !== 'reached') return tail;
      this.#counted = reading(before, index.changeCount);
      return (await this.#looksStale(pair, index)) ? 'again' : 'current';
    }
    const needed = await this.#missing(pair, index, 0);
    if (typeof needed !== 'number') return needed;
    if (needed > 0) return { gap: `${needed} commits were made in generations that are gone` };
    this.#counted = reading(before, index.changeCount);
    return 'current';
  }

  async #followEmpty(
    pair: WalPair,
    index: WalIndexHeader | undefined,
    before: BeforeReading | undefined,
  ): Promise<Step> {
    if (this.#position === undefined) {
      this.#moveTo(NOWHERE);
    } else if (index === undefined) {
      if (this.#position.frame > 0) return { gap: 'the WAL was emptied and no index counts its commits' };
    } else {
      const needed = await this.#missing(pair, index, 0);
      if (typeof needed !== 'number') return needed;
      if (needed > 0) return { gap: `the WAL was emptied with ${needed} commits unseen` };
    }
    this.#counted =
      index === undefined || before === undefined ? undefined : reading(before, index.changeCount);
    return 'current';
  }

  async #followUngoverned(pair: WalPair, wal: WalHeader, visit: FrameVisitor): Promise<Step> {
    if (wal.pageSize !== this.#pageSize) return { gap: this.#pageSizeChanged(wal) };
    if (this.#position === undefined) this.#moveTo(generationStart(wal));
    else if (!isGeneration(this.#position, wal)) {
      return { gap: 'the WAL was restarted while no index counted its commits' };
    }
    this.#counted = undefined;
    const horizon = (await lastCommit(pair.wal, this.#position!)).frame;
    const behind = new FrameReader({ ...this.#position!, frame: horizon });
    // Only the index in its writer's memory could say whether such a frame is committed, and a checkpoint may be copying
    // what is behind it. If nobody is there, recovery will take it for uncommitted.
    if (behind.isUnsummedNext(pair.wal.fd) && databaseIsExclusive(pair.database)) {
      return { wait: `frame ${horizon + 1} has no checksum and no index says whether it is committed` };
    }
    if (horizon === this.#position!.frame) return 'current';
    const read = await this.#readTo(pair, horizon, visit);
    return read === 'reached' ? 'current' : read;
  }

  /** From the position's generation to a later one, with proof; the position is before its first frame then. */
  async #cross(
    pair: WalPair,
    index: WalIndexHeader,
    wal: WalHeader,
    visit: FrameVisitor,
  ): Promise<'crossed' | 'more' | 'again' | { gap: string }> {
    const count = new FrameReader(generationStart(wal));
    for (let chunks = 1; ; chunks++) {
      if (chunks % CHUNKS_A_TURN === 0) await turn();
      const state = count.read(pair.wal.fd, index.maxFrame, () => true);
      if (state === 'reached') break;
      if (state !== 'broken') continue;
      if (!count.isUnsummedNext(pair.wal.fd)) return 'again';
      const unproven = await readUnproven(count, pair, index, () => true);
      if (unproven !== 'reached') return unproven;
      break;
    }
    const needed = await this.#missing(pair, index, this.#countOf(count));
    if (typeof needed !== 'number') return needed;
    const old = this.#position!;
    if (needed > 0 && wal.salt1 !== (old.salt1 + 1) >>> 0) {
      return { gap: `${needed} commits were made in generations that are gone` };
    }
    const tail = await this.#readTail(pair.wal, needed, visit);
    if (tail !== 'reached') return tail;
    if (this.#reader !== undefined && this.#reader.frame !== this.#position!.frame) {
      return { gap: `the WAL was restarted inside a commit, behind frame ${this.#reader.frame}` };
    }
    this.restarts++;
    this.#moveTo(generationStart(wal));
    return 'crossed';
  }

  /** Commits made since the position beyond those `seen` ahead of it; a gap if that cannot be known. */
  async #missing(pair: WalPair, index: WalIndexHeader, seen: number): Promise<number | { gap: string }> {
    if (this.#counted === undefined || pair.shm === undefined) {
      return { gap: 'the WAL was restarted and no commit count is known from before' };
    }
    if (!(await isSameEpoch(this.#counted, pair.shm, this.#events))) {
      return { gap: 'the WAL was restarted and its index may have been rebuilt since' };
    }
    const made = commitsBetween(this.#counted.count, index.changeCount);
    if (made < seen) return { gap: `the index counts ${made} commits, the WAL holds ${seen}` };
    return made - seen;
  }

  /** Takes exactly `needed` commits from behind the position, in the old generation. */
  async #readTail(
    wal: OpenFile,
    needed: number,
    visit: FrameVisitor,
  ): Promise<'reached' | 'more' | { readonly gap: string }> {
    const position = this.#position!;
    if (position.pageSize === 0) {
      return needed === 0 ? 'reached' : { gap: `${needed} commits were made before the first frame seen` };
    }
    if (needed === 0) {
      // The counts agree; a commit still standing behind the position contradicts them.
      return (await lastCommit(wal, position)).frame === position.frame
        ? 'reached'
        : { gap: `a commit behind frame ${position.frame} was not counted` };
    }
    let left = needed;
    const reader = this.#readerAt(position);
    const counting: FrameVisitor = (pgno, commit, chunk, at) => {
      const goOn = visit(pgno, commit, chunk, at);
      if (commit !== 0) {
        this.#committed(reader);
        left = needed - (this.#countOf(reader) - already);
      }
      return goOn && left > 0;
    };
    const already = this.#countOf(reader);
    for (let chunks = 1; ; chunks++) {
      if (chunks % CHUNKS_A_TURN === 0) await turn();
      const state = reader.read(wal.fd, Number.POSITIVE_INFINITY, counting);
      if (left === 0) return 'reached';
      if (state === 'stopped') return 'more';
      if (state === 'broken') {
        return { gap: `${left} of ${needed} commits behind frame ${position.frame} are overwritten` };
      }
    }
  }

  async #readTo(
    pair: WalPair,
    target: number,
    visit: FrameVisitor,
    index?: WalIndexHeader,
  ): Promise<'reached' | 'more' | 'again' | { readonly gap: string }> {
    const reader = this.#readerAt(this.#position!);
    const committing: FrameVisitor = (pgno, commit, chunk, at) => {
      const goOn = visit(pgno, commit, chunk, at);
      if (commit !== 0) this.#committed(reader);
      return goOn;
    };
    for (let chunks = 1; ; chunks++) {
      if (chunks % CHUNKS_A_TURN === 0) await turn();
      const state = reader.read(pair.wal.fd, target, committing);
      if (state === 'broken' && index !== undefined && reader.isUnsummedNext(pair.wal.fd)) {
        const unproven = await readUnproven(reader, pair, index, committing);
        if (unproven !== 'reached') return unproven;
        this.#position = reader.position;
        break;
      }
      if (state === 'broken') return 'again';
      if (state === 'stopped' && reader.frame < target) return 'more';
      if (state === 'reached' || state === 'stopped') break;
    }
    if (this.#position!.frame !== target) {
      return { gap: `the index points into the middle of a commit, at frame ${target}` };
    }
    return 'reached';
  }

  /** The reader behind the position, or beyond it inside a commit that a broken chain interrupted. */
  #readerAt(position: ChainPosition): FrameReader {
    this.#reader ??= new FrameReader(position);
    return this.#reader;
  }

  #committed(reader: FrameReader): void {
    const count = this.#countOf(reader);
    const made = count - this.#commitsBefore;
    this.#commitsBefore = count;
    this.#position = reader.position;
    if (this.#counted !== undefined && made > 0) {
      this.#counted = { ...this.#counted, count: (this.#counted.count + made) >>> 0 };
    }
  }

  #moveTo(position: ChainPosition): void {
    this.#position = position;
    this.#reader = undefined;
    this.#commitsBefore = 0;
  }

  /** Whether commits stand beyond a header that nobody updates any more. If so it no longer governs. */
  async #looksStale(pair: WalPair, index: WalIndexHeader): Promise<boolean> {
    const now = performance.now();
    if (now - this.#staleCheckedAt < STALE_CHECK_MS) return false;
    const { mtimeNs, size } = stampOf(pair.wal);
    const walState = `${mtimeNs} ${size} ${indexKey(index)}`;
    if (walState === this.#staleCheckedWal && !this.undecided) return false;
    this.#staleCheckedAt = now;
    if (pair.shm !== undefined && indexIsInUse(pair.shm)) {
      this.undecided = false;
      return false;
    }
    const beyond = (await lastCommit(pair.wal, this.#position!)).commits;
    const again = viewWal(pair.wal, pair.shm);
    if (!('index' in again) || again.index === undefined || indexKey(again.index) !== indexKey(index))
      return false;
    this.#staleCheckedWal = walState;
    this.undecided = false;
    if (beyond === 0) return false;
    if (beyond === 1 && !databaseIsExclusive(pair.database)) {
      this.undecided = true;
      return false;
    }
    this.#staleIndex = indexKey(index);
    return true;
  }

  #pageSizeChanged(wal: WalHeader): string {
    return `the WAL has pages of ${wal.pageSize} bytes, the database had ${this.#pageSize}`;
  }
}

function isGeneration(position: ChainPosition, wal: WalHeader): boolean {
  return position.salt1 === wal.salt1 && position.salt2 === wal.salt2;
}

function indexKey(index: WalIndexHeader): string {
  return [
    index.changeCount,
    index.maxFrame,
    index.salt1,
    index.salt2,
    index.frameChecksum1,
    index.frameChecksum2,
  ].join(' ');
}

/**
 * The frames up to the horizon of a governing index of which some carry no checksum. They never change until new salts
 * are published: if the index still vouches for them after they were read, they are what its readers see.
 */
async function readUnproven(
  reader: FrameReader,
  pair: WalPair,
  index: WalIndexHeader,
  visit: FrameVisitor,
): Promise<'reached' | { readonly gap: string }> {
  const checksum = { s1: index.frameChecksum1, s2: index.frameChecksum2 };
  const first = reader.frame + 1;
  for (let chunks = 1; ; chunks++) {
    if (chunks % CHUNKS_A_TURN === 0) await turn();
    const state = reader.readUnproven(pair.wal.fd, index.maxFrame, checksum, visit);
    if (state === 'broken') return { gap: `frame ${reader.frame + 1} cannot be read` };
    if (state === 'reached') break;
  }
  const now = viewWal(pair.wal, pair.shm);
  const vouched =
    now.kind === 'governed' &&
    now.index.salt1 === index.salt1 &&
    now.index.salt2 === index.salt2 &&
    now.index.maxFrame >= index.maxFrame;
  return vouched ? 'reached' : { gap: `frames from ${first} on have no checksum and were overwritten` };
}

/** How far commits reach behind a position by the checksum chain alone. */
async function lastCommit(
  wal: OpenFile,
  position: ChainPosition,
): Promise<{ frame: number; commits: number }> {
  if (position.pageSize === 0) return { frame: position.frame, commits: 0 };
  const ahead = new FrameReader(position);
  let frame = position.frame;
  const visit: FrameVisitor = (_pgno, commit) => {
    if (commit !== 0) frame = ahead.frame;
    return true;
  };
  for (let chunks = 1; ahead.read(wal.fd, Number.POSITIVE_INFINITY, visit) === 'chunk'; chunks++) {
    if (chunks % CHUNKS_A_TURN === 0) await turn();
  }
  return { frame, commits: ahead.commits };
}
