/**
 * Follows the commits of a WAL database as they appear, and proves that none is missing.
 *
 * Invariants:
 * 1. Only committed frames are handed on: those up to the *commit horizon*, read from the governing `-shm` header, or,
 *    where none governs (index-trust.ts), found as the last commit frame for which the WAL's own checksum chain holds.
 * 2. Within a generation (the life of a WAL between restarts, named by its salts) the chain proves that every frame is
 *    seen, in order. Frames up to the horizon never change until new salts are published.
 * 3. From one generation to the next nothing is lost that cannot be proven (restart-proof.ts).
 * 4. A horizon behind the position, another checksum at it, or a chain that breaks before it while the header stays
 *    means that history was rewound: that is a gap.
 * 5. Every re-read is bounded. What cannot be proven ends as a gap, and a gap is answered by comparing pages.
 */

import { setTimeout as delay } from 'node:timers/promises';
import type { WalHeader } from '../sqlite/wal.js';
import type { WalIndexHeader } from '../sqlite/wal-index.js';
import { type BeforeReading, beforeReading, type CountReading, reading } from './change-count.js';
import { type BeforePages, beforePages, doubtPages } from './checkpoint-doubt.js';
import type { FileEvents } from './file-events.js';
import { type FileStamp, isSettled, type OpenFile, stampOf, stampsEqual } from './files.js';
import {
  type ChainPosition,
  type FrameVisitor,
  generationStart,
  hasUnsummedCommit,
  isGeneration,
  isIntact,
  lastCommit,
  readAhead,
} from './frame-reader.js';
import { IndexTrust, type WalPair } from './index-trust.js';
import { databaseIsExclusive } from './locks.js';
import { finishGeneration, isCheckpointed, noneMissing, readTail } from './restart-proof.js';
import { type Gap, WalPosition } from './wal-position.js';
import { viewWal, type WalView } from './wal-view.js';

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

type Step = 'current' | 'more' | 'again' | Gap | { readonly wait: string };
type With<K extends WalView['kind']> = Extract<WalView, { kind: K }>;

const LOOKS = 8;
/** The largest page that is never written. */
const LOCK_PAGE_BYTES = 65_536;

export class Follower {
  /** Size in pages after the last commit handed on; 0 if none was. */
  pageCount = 0;
  /** The index header that governed at the last look, if one did. */
  index: WalIndexHeader | undefined;
  /** Restarts crossed with proof. */
  restarts = 0;
  readonly #pageSize: number;
  readonly #events: FileEvents;
  readonly #trust = new IndexTrust();
  /** Undefined: begin with the first frame of whatever generation is live. */
  #position: WalPosition | undefined;
  /** Times of a WAL that was empty when no index counted its commits. */
  #emptied: FileStamp | undefined;
  /** What things were like when the first look since a restart had led to the horizon. */
  #before: BeforePages | undefined;
  /** The largest size in pages that was found possible. */
  #largest = 0;

  constructor(pageSize: number, events: FileEvents) {
    this.#pageSize = pageSize;
    this.#events = events;
  }

  get position(): ChainPosition | undefined {
    return this.#position?.chain;
  }

  /** The index's counter at the position, if it is known for certain. */
  get counted(): CountReading | undefined {
    return this.#position?.counted;
  }

  /** A commit stands beyond a header that may govern: not taken, not refuted. */
  get undecided(): boolean {
    return this.#trust.undecided;
  }

  /** Forgets the position: the next poll hands on the live generation from its first frame. */
  restart(): void {
    this.#position = undefined;
    this.#emptied = undefined;
    this.#before = undefined;
    this.pageCount = 0;
  }

  /**
   * Why pages that were read from the database since `restart` may not be of the state that was followed to since; 'again' if
   * it is to be followed on before that can be told.
   */
  async doubt(pair: WalPair): Promise<undefined | 'again' | { readonly why: string }> {
    if (this.index === undefined || pair.shm === undefined) return undefined;
    const doubt = await doubtPages(pair, this.index, this.position!, this.#before!);
    if (typeof doubt === 'object' && doubt.isStale) this.#trust.distrust(pair, this.index);
    return doubt;
  }

  /** Goes on from a position known from before. */
  resume(position: ChainPosition, counted: CountReading | undefined, pageCount: number): void {
    this.#position = new WalPosition(position, counted);
    this.pageCount = pageCount;
  }

  /**
   * Hands on what was committed since the last call, up to where the sink says stop.
   * @throws FormatError if the WAL is none that SQLite would read
   */
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
    for (let look = 0; look < LOOKS; look++) {
      if (look > 2) await delay(look);
      const before = pair.shm === undefined ? undefined : await beforeReading(pair.shm, this.#events);
      const isFresh = look === 0 && this.#position === undefined;
      const view = this.#trust.judge(viewWal(pair.wal, pair.shm), pair, isFresh);
      if (view.kind === 'changing') {
        why = view.why;
        continue;
      }
      let step = await this.#follow(pair, view, before, visit, look === LOOKS - 1);
      if (step === 'current' && (await this.#trust.looksStale(pair, view, this.position!))) step = 'again';
      if (step === 'again') continue;
      // Half a commit was handed on, and nothing that is proven goes on from there.
      if (this.#position?.isInsideCommit) break;
      if (step === 'current') this.#before ??= beforePages(pair, this.index);
      if (typeof step !== 'object') return this.#impossible(pair) ?? { state: step, commits };
      return 'gap' in step ? { state: 'gap', reason: step.gap } : { state: 'wait', commits, why: step.wait };
    }
    if (this.#position?.isInsideCommit) {
      const { frame } = this.#position.reader;
      return { state: 'gap', reason: `the chain broke inside a commit, behind frame ${frame}` };
    }
    return { state: 'wait', commits, why };
  }

  async #follow(
    pair: WalPair,
    view: Exclude<WalView, { kind: 'changing' }>,
    before: BeforeReading | undefined,
    visit: FrameVisitor,
    isLastLook: boolean,
  ): Promise<Step> {
    if (view.kind === 'unreadable') throw view.error;
    this.index = 'index' in view ? view.index : undefined;
    if (view.kind === 'empty') return this.#followEmpty(pair, view.index, before);
    this.#emptied = undefined;
    if (view.kind === 'begun') return this.#followEmpty(pair, view.index, before);
    if (view.wal.pageSize !== this.#pageSize) {
      return { gap: `the WAL has pages of ${view.wal.pageSize} bytes, the database had ${this.#pageSize}` };
    }
    if (view.kind === 'ungoverned') return this.#followUngoverned(pair, view.wal, visit);
    return view.kind === 'governed'
      ? this.#followGoverned(pair, view, before!, visit)
      : this.#followRestarted(pair, view, before!, visit, isLastLook);
  }

  async #followGoverned(
    pair: WalPair,
    { index, wal }: With<'governed'>,
    before: BeforeReading,
    visit: FrameVisitor,
  ): Promise<Step> {
    this.#position ??= new WalPosition(generationStart(wal));
    const position = this.#position;
    if (!isGeneration(position.chain, wal)) {
      const ahead = await readAhead(pair.wal, generationStart(wal), index.maxFrame);
      if (ahead === undefined) return this.#broken(pair, index);
      const missing = await position.missing(index, pair.shm, this.#events);
      const live = { header: wal, ahead, missing };
      const finished = await finishGeneration(position, pair, live, visit);
      if (finished !== 'reached') return finished;
      this.#enter(position, wal);
    }
    const { frame } = position.chain;
    if (index.maxFrame < frame) {
      return { gap: `the WAL ends at frame ${index.maxFrame}, before the position ${frame}` };
    }
    const read = await position.readTo(pair.wal, index.maxFrame, visit, true);
    if (read === 'broken') return this.#broken(pair, index);
    const { reader } = position;
    if (reader.unsummed) {
      // Nothing but the index vouches for such frames, so it must still have stood when the last of them was read.
      const again = viewWal(pair.wal, pair.shm);
      if (again.kind !== 'governed' || !isGeneration(position.chain, again.wal)) {
        return { gap: 'the WAL was restarted while frames without a checksum were read' };
      }
    }
    if (typeof read === 'object') this.#trust.distrust(pair, index);
    if (read !== 'reached') return read;
    if (index.maxFrame > 0 && !reader.endsWith(index.frameChecksum1, index.frameChecksum2)) {
      return this.#broken(pair, index);
    }
    if (reader.unsummed) position.moveTo(reader.position);
    position.count(reading(before, index.changeCount));
    return 'current';
  }

  /** The chain does not hold up to the last frame of the index. That is a gap, unless index or WAL have moved on since. */
  #broken(pair: WalPair, index: WalIndexHeader): Step {
    const again = viewWal(pair.wal, pair.shm);
    if (again.kind !== 'governed') return 'again';
    if (again.index.salt1 !== index.salt1 || again.index.salt2 !== index.salt2) return 'again';
    this.#trust.distrust(pair, index);
    const frame = this.#position!.reader.frame;
    return { gap: `the WAL's checksums end behind frame ${frame}, its index at frame ${index.maxFrame}` };
  }

  async #followRestarted(
    pair: WalPair,
    { index, wal }: With<'restarted'>,
    before: BeforeReading,
    visit: FrameVisitor,
    isLastLook: boolean,
  ): Promise<Step> {
    if (this.#position === undefined) {
      // All frames are in the database, if the header governs. Usually the next look finds the new generation.
      if (!isLastLook) return 'again';
      if (await this.#isBehind(pair, wal)) {
        const again = viewWal(pair.wal, pair.shm);
        if (again.kind !== 'restarted' || again.index.salt2 !== index.salt2) return 'again';
        if (this.#trust.distrust(pair, index)) return this.#followUngoverned(pair, wal, visit);
      }
      this.#position = new WalPosition();
    } else {
      const position = this.#position;
      const missing = await position.missing(index, pair.shm, this.#events);
      if (typeof missing !== 'number') return missing;
      const read = isGeneration(position.chain, wal)
        ? await readTail(position, pair, missing, position.repeats, visit)
        : noneMissing(missing);
      if (read !== 'reached') return read;
    }
    this.#position.count(reading(before, index.changeCount));
    return 'current';
  }

  /** Whether the database lacks what is in the WAL, and not just a last commit, which nobody may have published. */
  async #isBehind(pair: WalPair, wal: WalHeader): Promise<boolean> {
    const start = generationStart(wal);
    const { chain, lastBegins } = await lastCommit(pair.wal, start);
    for (const end of [chain, lastBegins]) if (await isCheckpointed(pair, start, end)) return false;
    return true;
  }

  async #followEmpty(
    pair: WalPair,
    index: WalIndexHeader | undefined,
    before: BeforeReading | undefined,
  ): Promise<Step> {
    if (index === undefined || before === undefined) return this.#followEmptied(pair.wal);
    if (this.#position === undefined) this.#position = new WalPosition();
    else {
      const missing = await this.#position.missing(index, pair.shm, this.#events);
      if (typeof missing !== 'number') return missing;
      const none = noneMissing(missing);
      if (none !== 'reached') return none;
    }
    this.#emptied = undefined;
    this.#position.count(reading(before, index.changeCount));
    return 'current';
  }

  /** Without an index nothing was committed if nothing was written to the WAL: its times show that. */
  #followEmptied(wal: OpenFile): Step {
    const stamp = stampOf(wal);
    if (this.#position !== undefined) {
      return stampsEqual(stamp, this.#emptied)
        ? 'current'
        : { gap: 'the WAL was emptied and no index counts its commits' };
    }
    if (!isSettled(stamp)) return 'again';
    this.#position = new WalPosition();
    this.#emptied = stamp;
    return 'current';
  }

  async #followUngoverned(pair: WalPair, wal: WalHeader, visit: FrameVisitor): Promise<Step> {
    this.#position ??= new WalPosition(generationStart(wal));
    const position = this.#position;
    if (!isGeneration(position.chain, wal)) {
      const start = generationStart(wal);
      const ahead = await readAhead(pair.wal, start, (await lastCommit(pair.wal, start)).chain.frame);
      if (ahead === undefined) return 'again';
      const live = { header: wal, ahead, missing: UNCOUNTED };
      const finished = await finishGeneration(position, pair, live, visit);
      if (finished !== 'reached') return finished;
      this.#enter(position, wal);
    } else if (position.chain.frame > 0 && !isIntact(pair.wal, position.chain)) {
      return { gap: `frame ${position.chain.frame} is not the one that was read there` };
    }
    position.count(undefined);
    const { chain } = await lastCommit(pair.wal, position.chain);
    // Whoever has come to use the index in the meantime has not published what he has just written.
    const again = this.#trust.judge(viewWal(pair.wal, pair.shm), pair, true);
    if (again.kind !== 'ungoverned' || !isGeneration(position.chain, again.wal)) return 'again';
    // Only the index in its writer's memory could say whether such a commit is one, and a checkpoint may be copying what is
    // in it. If nobody is there, recovery will take it for none.
    if ((await hasUnsummedCommit(pair.wal, chain)) && databaseIsExclusive(pair.database)) {
      const why = `behind frame ${chain.frame} frames have no checksum, and no index says whether they are committed`;
      return stampOf(pair.wal).links === 0n ? { gap: why } : { wait: why };
    }
    const read = await position.readTo(pair.wal, chain.frame, visit);
    if (read === 'broken') return 'again';
    return read === 'reached' ? 'current' : read;
  }

  /** The position's generation was read to its end: before the first frame of the live one now. */
  #enter(position: WalPosition, wal: WalHeader): void {
    position.moveTo(generationStart(wal));
    this.restarts++;
  }

  /**
   * A database holds no more pages than its file and its WAL, by SQLite's own measure. A commit that says otherwise was not
   * SQLite's; or the file was cut since, and the next look knows.
   */
  #impossible(pair: WalPair): FollowOutcome | undefined {
    if (this.#position === undefined || this.pageCount <= this.#largest) return undefined;
    const { frame } = this.#position.chain;
    const inFile = Number(stampOf(pair.database).size) + LOCK_PAGE_BYTES;
    const limit = Math.ceil(inFile / this.#pageSize) + frame;
    if (this.pageCount > limit) {
      const reason = `frame ${frame} of the WAL says ${this.pageCount} pages, file and WAL can hold ${limit}`;
      return { state: 'gap', reason };
    }
    this.#largest = this.pageCount;
    return undefined;
  }
}

const UNCOUNTED: Gap = { gap: 'the WAL was restarted while no index counted its commits' };
