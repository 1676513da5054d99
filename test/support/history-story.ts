/**
 * The last acts of a random history, what the files looked like, and what capture made of them: told when it fails, since
 * the same acts at other moments may not fail again.
 */
import fs from 'node:fs';
import { performance } from 'node:perf_hooks';
import type { Application } from './application.js';
import type { CapturedCopy } from './captured-copy.js';
import { parseWal, readIndex } from './wal-files.js';

const LINES = 150;
const DIFFERENCES = 3;

export class Story {
  readonly #began = performance.now();
  readonly #lines: string[] = [];
  #eventsTold = 0;
  #copy: CapturedCopy | undefined;

  tell(line: string): void {
    this.#lines.push(`${(performance.now() - this.#began).toFixed(1)} ms  ${line}`);
    if (this.#lines.length > LINES) this.#lines.shift();
  }

  /** Tells whatever `application` is asked to do. */
  hear(application: Application): void {
    application.onAnswer = ({ do: what, on = 'main', sql = '' }, error) => {
      this.tell(`${application.pid} ${on} ${what} ${sql}${error === undefined ? '' : ` -> ${error}`}`);
    };
  }

  /** Tells what capture made of a look. */
  looked(copy: CapturedCopy, outcome: string): void {
    if (copy !== this.#copy) this.#eventsTold = 0;
    this.#copy = copy;
    for (const { message } of copy.events.slice(this.#eventsTold)) this.tell(`  ${message}`);
    this.#eventsTold = copy.events.length;
    const { wal, quiet } = copy.capture.point();
    const { frame, salt1, salt2 } = wal?.position ?? {};
    const at = wal && `frame ${frame} of ${salt1}-${salt2} in ${wal.ino}, count ${wal.counted?.count}`;
    const still = quiet && `quiet since ${quiet.stamp.mtimeNs}, ${quiet.settled ? 'settled' : 'not settled'}`;
    this.tell(`capture: ${outcome}; ${at ?? 'no WAL'}; ${still ?? 'not quiet'}`);
    this.tell(`  ${filesNow(copy.capture.files.path)}`);
  }

  /** Tells how the copy differs from the truth. */
  differs(copy: CapturedCopy, truth: Buffer): void {
    for (const line of differing(copy, truth)) this.tell(line);
  }

  toString(): string {
    return this.#lines.join('\n');
  }
}

function filesNow(path: string): string {
  const told: string[] = [];
  for (const suffix of ['', '-wal', '-shm', '-journal']) {
    const stat = fs.statSync(path + suffix, { bigint: true, throwIfNoEntry: false });
    if (stat === undefined) continue;
    const { ino, size, mtimeNs, ctimeNs } = stat;
    told.push(
      `${suffix || 'db'} ${ino} ${size} bytes m ${mtimeNs} c ${ctimeNs}${headOf(path, suffix, size)}`,
    );
  }
  return told.join('; ');
}

function headOf(path: string, suffix: string, size: bigint): string {
  if (suffix === '-wal' && size >= 32n) {
    const { salt1, salt2 } = parseWal(fs.readFileSync(path + suffix));
    return ` salts ${salt1}-${salt2}`;
  }
  if (suffix === '-shm' && size >= 136n) {
    const { changeCount, maxFrame, salt1, salt2 } = readIndex(path + suffix);
    return ` count ${changeCount} frames ${maxFrame} salts ${salt1}-${salt2}`;
  }
  return '';
}

/** Where the first pages that differ do so, and which of the two the files hold. */
function differing(copy: CapturedCopy, truth: Buffer): string[] {
  const { pageSize, files } = copy.capture;
  const told: string[] = [];
  const inFile = fs.readFileSync(files.path);
  const frames = fs.existsSync(files.walPath) ? framesIn(fs.readFileSync(files.walPath)) : [];
  for (let at = 0; at < truth.length && told.length < DIFFERENCES; at += pageSize) {
    const [right, wrong] = [truth, copy.content].map((content) => content.subarray(at, at + pageSize));
    if (right!.equals(wrong!)) continue;
    const first = right!.findIndex((byte, i) => byte !== wrong![i]);
    const whose = (page: Buffer): string =>
      page.equals(right!) ? 'the truth' : page.equals(wrong!) ? 'as captured' : 'another version';
    const held = frames
      .map(({ pgno, page }, i) => [i + 1, pgno, page] as const)
      .filter(([, pgno]) => pgno === at / pageSize + 1)
      .map(([frame, , page]) => `frame ${frame} ${whose(page)}`);
    told.push(
      `page ${at / pageSize + 1} differs from byte ${first} on: ${hex(right!, first)} is right, ${hex(wrong!, first)} was ` +
        `captured; database file ${whose(inFile.subarray(at, at + pageSize))}; ${held.join(', ') || 'no frame'}`,
    );
  }
  return told;
}

function framesIn(wal: Buffer): { pgno: number; page: Buffer }[] {
  if (wal.length < 32) return [];
  return parseWal(wal).frames.map(({ pgno, page }) => ({ pgno, page: Buffer.from(page) }));
}

function hex(page: Buffer, from: number): string {
  return page.subarray(from, from + 16).toString('hex');
}
