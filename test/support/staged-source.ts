/**
 * SQLite's WAL protocol, one step after the other: what the connections of a database write, in the order in which they
 * write it, on files that capture reads meanwhile. Each `yield` is a place where time may pass, or the process may die.
 */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import type { Random } from './random.js';
import { world } from './staged-world.js';
import { craftIndex, type IndexHeader, sum } from './wal-files.js';

const PAGE = 512;
const FRAME = 24 + PAGE;
const DATABASE_LOCK = [0x40000000, 0x400001ff] as const;

type Steps = Generator<undefined, void>;
type Pages = readonly (readonly [pgno: number, page: Buffer])[];
interface Plan {
  readonly pages: Pages;
  readonly size: number;
  /** Times that the last frame is repeated, to fill a disk sector. */
  readonly padding: number;
  readonly ending: 'publish' | 'roll back' | 'die before publishing';
}
interface Chain {
  readonly salts: readonly [number, number];
  readonly checksum: [number, number];
  readonly pageCount: number;
  /** Up to the last commit. */
  readonly frames: Pages;
}

export function digestOf(bytes: Uint8Array): string {
  return createHash('sha1').update(bytes).digest('hex');
}

export class StagedSource {
  readonly path: string;
  /** Digests of all that was ever committed. */
  readonly committed = new Set<string>();
  /** Connections. */
  alive = 0;
  /** The one connection keeps its index in memory. */
  isExclusive = false;
  /** Half of the index header is new. */
  isTorn = false;
  /** Half of a page of the database is new. The system copies a page at once, but a read may come in between. */
  isInPage = false;
  readonly story: string[] = [];
  readonly #random: Random;
  readonly #mayBeExclusive: boolean;
  readonly #database: number;
  #pages: Buffer[];
  #wal = -1;
  #index = -1;
  #isUsed = false;
  #isClosing = false;
  #header!: IndexHeader;
  #frames: (readonly [number, Buffer])[] = [];
  #draws = 0;
  #lastWritten = 0;
  #drawsSalts = true;

  constructor(path: string, random: Random, mayBeExclusive: boolean) {
    this.path = path;
    this.#random = random;
    this.#mayBeExclusive = mayBeExclusive;
    this.#pages = [this.#firstPage(4, 1), this.#newPage(), this.#newPage(), this.#newPage()];
    fs.writeFileSync(path, this.now);
    this.#database = fs.openSync(path, 'r+');
    world.touch(path);
    this.committed.add(digestOf(this.now));
  }

  /** What is committed. */
  get now(): Buffer {
    return Buffer.concat(this.#pages);
  }

  /** What whoever opens the database when nobody is connected would find. */
  get recoverable(): Buffer {
    const file = fs.readFileSync(this.path);
    const chain = fs.existsSync(this.#walPath) ? this.#scan() : undefined;
    const count = chain?.frames.length ? chain.pageCount : file.readUInt32BE(28);
    const pages: Buffer[] = Array.from({ length: count }, (_, i) =>
      Buffer.from(file.subarray(i * PAGE, (i + 1) * PAGE)),
    );
    for (const [pgno, page] of chain?.frames ?? []) if (pgno <= count) pages[pgno - 1] = page;
    return Buffer.concat(pages);
  }

  /** As /proc/locks would show them. */
  get locks(): string {
    const whole = world.lockLine(this.path, 'WRITE', ...DATABASE_LOCK);
    if (this.isExclusive) return whole;
    if (!this.#isUsed) return '';
    return world.lockLine(this.#indexPath, 'READ', 128, 128) + (this.#isClosing ? whole : '');
  }

  /** What one of the connections does next; undefined: all of them are killed. */
  next(): Steps | undefined {
    const draw = this.#random.below(100);
    if (this.alive === 0) return this.#open();
    if (draw < 50) return this.#write(this.#plan('publish'));
    if (draw < 58) return this.#write(this.#plan('roll back'));
    if (draw < 62) return this.#write(this.#plan(this.alive > 1 ? 'die before publishing' : 'publish'));
    // Nobody but readers keeps a checkpoint from copying all.
    if (draw < 72) return this.#checkpoint(this.isExclusive ? 'all' : 'some');
    if (draw < 86) return this.#checkpoint('all');
    if (draw < 91) return this.#checkpoint('truncate');
    if (draw < 95) return this.isExclusive ? this.#checkpoint('all') : this.#open();
    return draw < 98 ? this.#close() : undefined;
  }

  kill(): void {
    this.#tell('all are killed');
    this.#letGo();
  }

  /** The test is over. */
  dispose(): void {
    this.#letGo();
    fs.closeSync(this.#database);
  }

  get #walPath(): string {
    return `${this.path}-wal`;
  }

  get #indexPath(): string {
    return `${this.path}-shm`;
  }

  #letGo(): void {
    for (const fd of [this.#wal, this.#index]) if (fd >= 0) fs.closeSync(fd);
    this.#wal = -1;
    this.#index = -1;
    this.alive = 0;
    this.isExclusive = false;
    this.isTorn = false;
    this.isInPage = false;
    this.#isUsed = false;
    this.#isClosing = false;
  }

  #tell(line: string): void {
    this.story.push(`${performance.now().toFixed(1)} ms  ${line}`);
    if (this.story.length > 60) this.story.shift();
  }

  #newPage(): Buffer {
    const page = Buffer.alloc(PAGE);
    page.writeUInt32BE(++this.#draws, 0);
    page.writeUInt32BE(this.#draws, PAGE - 4);
    return page;
  }

  #firstPage(pageCount: number, changes: number): Buffer {
    const page = this.#newPage();
    page.write('SQLite format 3\0', 0, 'latin1');
    page.writeUInt16BE(PAGE, 16);
    page.set([2, 2, 0, 64, 32, 32], 18);
    for (const [at, value] of [
      [24, changes],
      [28, pageCount],
      [92, changes],
      [96, 3040001],
    ] as const) {
      page.writeUInt32BE(value, at);
    }
    return page;
  }

  #plan(ending: Plan['ending']): Plan {
    const random = this.#random;
    const before = this.#pages.length;
    const kind = random.below(10);
    // Some write the page that was written last as it is.
    if (ending === 'publish' && kind > 6 && this.#lastWritten > 1 && this.#lastWritten <= before) {
      const page = this.#pages[this.#lastWritten - 1]!;
      return { pages: [[this.#lastWritten, page]], size: before, padding: 0, ending };
    }
    let size = before;
    if (kind === 0 && before < 12) size += 1 + random.below(3);
    if (kind === 1 && before > 3) size--;
    const numbers = new Set(size === before ? [] : [1]);
    for (let pgno = before + 1; pgno <= size; pgno++) numbers.add(pgno);
    for (let n = random.below(3); n >= 0; n--) numbers.add(2 + random.below(size - 1));
    const changes = this.#pages[0]!.readUInt32BE(24) + 1;
    const pages = [...numbers].map(
      (pgno) => [pgno, pgno === 1 ? this.#firstPage(size, changes) : this.#newPage()] as const,
    );
    if (random.oneIn(2)) pages.reverse();
    this.#lastWritten = ending === 'publish' ? pages.at(-1)![0] : 0;
    return { pages, size, padding: random.oneIn(3) ? 1 + random.below(2) : 0, ending };
  }

  *#open(): Steps {
    if (this.alive > 0) {
      this.alive++;
      return;
    }
    this.isExclusive = this.#mayBeExclusive && this.#random.oneIn(2);
    this.#tell(this.isExclusive ? 'opened in exclusive locking mode' : 'opened');
    const [isWalNew, isIndexNew] = [!fs.existsSync(this.#walPath), !fs.existsSync(this.#indexPath)];
    this.#wal = fs.openSync(this.#walPath, isWalNew ? 'w+' : 'r+');
    if (isWalNew) world.touch(this.#walPath, { event: 'rename' });
    yield;
    if (!this.isExclusive) {
      this.#index = fs.openSync(this.#indexPath, isIndexNew ? 'w+' : 'r+');
      if (isIndexNew) world.touch(this.#indexPath, { event: 'rename' });
      for (const length of [3, 32768]) {
        fs.ftruncateSync(this.#index, length);
        world.touch(this.#indexPath);
        yield;
      }
      this.#isUsed = true;
    }
    const chain = this.#scan();
    const [salt1, salt2] = chain?.salts ?? [0, 0];
    this.#frames = [...(chain?.frames ?? [])];
    const found = this.recoverable;
    this.#pages = Array.from({ length: found.length / PAGE }, (_, i) =>
      found.subarray(i * PAGE, (i + 1) * PAGE),
    );
    this.committed.add(digestOf(found));
    const [maxFrame, pageCount] = [this.#frames.length, chain?.pageCount ?? 0];
    const checksum: [number, number] = chain?.checksum ?? [0, 0];
    const header = { changeCount: 0, pageSize: PAGE, maxFrame, pageCount, checksum, salt1, salt2 };
    yield* this.#publish({ ...header, backfill: 0, backfillAttempted: 0 });
    this.#setBackfill(0);
    this.alive = 1;
    this.#drawsSalts = true;
  }

  /** The second copy, then the first. */
  *#publish(header: IndexHeader): Steps {
    if (!this.isExclusive) {
      const bytes = craftIndex(header);
      fs.writeSync(this.#index, bytes, 48, 48, 48);
      this.isTorn = true;
      yield;
      fs.writeSync(this.#index, bytes, 0, 48, 0);
      this.isTorn = false;
    }
    this.#header = header;
  }

  #setBackfill(frames: number): void {
    this.#header = { ...this.#header, backfill: frames };
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(frames);
    if (!this.isExclusive) fs.writeSync(this.#index, bytes, 0, 4, 96);
  }

  *#write({ pages, size, padding, ending }: Plan): Steps {
    const random = this.#random;
    let { salt1, salt2, maxFrame, checksum } = this.#header;
    if (maxFrame > 0 && this.#header.backfill === maxFrame && !random.oneIn(5)) {
      yield* this.#restart();
      ({ salt1, salt2, maxFrame } = this.#header);
    }
    if (maxFrame === 0) {
      // Salts that nobody has published yet.
      if ((this.#drawsSalts && random.oneIn(2)) || salt1 === 0) {
        [salt1, salt2] = [random.below(2 ** 32), random.below(2 ** 32)];
      }
      checksum = yield* this.#writeWalHeader(salt1, salt2);
    }
    let frame = maxFrame;
    const written = [...pages];
    if (ending !== 'roll back') for (let n = 0; n < padding; n++) written.push(pages.at(-1)!);
    for (const [i, [pgno, page]] of written.entries()) {
      const commit = i >= pages.length - 1 && ending !== 'roll back' ? size : 0;
      const bytes = Buffer.alloc(FRAME);
      for (const [at, value] of [pgno, commit, salt1, salt2].entries()) bytes.writeUInt32BE(value, at * 4);
      bytes.set(page, 24);
      checksum = sum(bytes, 24, PAGE, sum(bytes, 0, 8, checksum));
      for (const [at, value] of checksum.entries()) bytes.writeUInt32BE(value, 16 + at * 4);
      yield* this.#writeWal(bytes, 32 + frame++ * FRAME, 24);
    }
    this.#tell(`frames ${maxFrame + 1} to ${frame}: ${ending}`);
    if (ending === 'roll back') return;
    if (maxFrame === 0 && random.oneIn(4)) {
      const limit = Math.max(32 + frame * FRAME, random.pick([0, 1500, 3000]));
      if (limit < fs.fstatSync(this.#wal).size) fs.ftruncateSync(this.#wal, limit);
      world.touch(this.#walPath);
      yield;
    }
    if (ending === 'die before publishing') return;
    const changeCount = (this.#header.changeCount + 1) >>> 0;
    const header = { ...this.#header, changeCount, maxFrame: frame, pageCount: size, checksum, salt1, salt2 };
    yield* this.#publish(header);
    this.#drawsSalts = false;
    this.#frames.push(...written);
    for (const [pgno, page] of pages) this.#pages[pgno - 1] = page;
    this.#pages.length = size;
    this.committed.add(digestOf(this.now));
  }

  *#restart(): Steps {
    const { salt1 } = this.#header;
    this.#frames = [];
    this.#tell('restart');
    yield* this.#publish({
      ...this.#header,
      salt1: (salt1 + 1) >>> 0,
      salt2: this.#random.below(2 ** 32),
      maxFrame: 0,
    });
    yield;
    this.#setBackfill(0);
    yield;
  }

  *#writeWalHeader(salt1: number, salt2: number): Generator<undefined, [number, number]> {
    const bytes = Buffer.alloc(32);
    for (const [at, value] of [0x377f0682, 3007000, PAGE, 0, salt1, salt2].entries()) {
      bytes.writeUInt32BE(value, at * 4);
    }
    const checksum = sum(bytes, 0, 24);
    for (const [at, value] of checksum.entries()) bytes.writeUInt32BE(value, 24 + at * 4);
    yield* this.#writeWal(bytes, 0, 32);
    return checksum;
  }

  *#writeWal(bytes: Buffer, at: number, headLength: number): Steps {
    for (const [from, to] of [
      [0, headLength],
      [headLength, bytes.length],
    ] as const) {
      fs.writeSync(this.#wal, bytes, from, to - from, at + from);
      world.touch(this.#walPath);
      yield;
    }
  }

  *#checkpoint(how: 'some' | 'all' | 'truncate'): Steps {
    const { maxFrame, pageCount, backfill } = this.#header;
    const end = how === 'some' ? backfill + this.#random.below(maxFrame - backfill + 1) : maxFrame;
    if (end > backfill) {
      this.#tell(`checkpoint of frames ${backfill + 1} to ${end}`);
      const newest = new Map(this.#frames.slice(backfill, end));
      for (const [pgno, page] of [...newest].sort(([a], [b]) => a - b)) {
        for (const from of pgno > pageCount ? [] : [0, PAGE / 2]) {
          fs.writeSync(this.#database, page, from, PAGE / 2, (pgno - 1) * PAGE + from);
          world.touch(this.path);
          this.isInPage = from === 0;
          yield;
        }
      }
      this.isInPage = false;
      if (end === this.#header.maxFrame && fs.fstatSync(this.#database).size > pageCount * PAGE) {
        fs.ftruncateSync(this.#database, pageCount * PAGE);
        world.touch(this.path);
        yield;
      }
      this.#setBackfill(end);
      yield;
    }
    if (how !== 'truncate' || this.#header.backfill !== this.#header.maxFrame) return;
    yield* this.#restart();
    fs.ftruncateSync(this.#wal, 0);
    world.touch(this.#walPath);
    yield;
  }

  *#close(): Steps {
    if (this.alive > 1) {
      this.alive--;
      return;
    }
    this.#tell('the last one closes');
    this.#isClosing = true;
    yield;
    yield* this.#checkpoint('all');
    for (const path of this.isExclusive ? [this.#walPath] : [this.#indexPath, this.#walPath]) {
      world.touch(path, { written: false, event: 'rename' });
      fs.unlinkSync(path);
      yield;
    }
    this.#letGo();
  }

  #scan(): Chain | undefined {
    const wal = fs.readFileSync(this.#walPath);
    if (wal.length < 32) return undefined;
    const word = (at: number): number => wal.readUInt32BE(at);
    let checksum: [number, number] = [word(24), word(28)];
    if (String(sum(wal, 0, 24)) !== String(checksum)) return undefined;
    const salts = [word(16), word(20)] as const;
    const frames: (readonly [number, Buffer])[] = [];
    let found: Chain = { salts, checksum, pageCount: 0, frames: [] };
    for (let at = 32; at + FRAME <= wal.length; at += FRAME) {
      if (word(at + 8) !== salts[0] || word(at + 12) !== salts[1]) break;
      checksum = sum(wal, at + 24, PAGE, sum(wal, at, 8, checksum));
      if (checksum[0] !== word(at + 16) || checksum[1] !== word(at + 20)) break;
      frames.push([word(at), Buffer.from(wal.subarray(at + 24, at + FRAME))]);
      if (word(at + 4) > 0) found = { salts, checksum, pageCount: word(at + 4), frames: [...frames] };
    }
    return found;
  }
}
