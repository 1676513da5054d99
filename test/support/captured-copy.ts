/** A copy of a database that is kept up to date with nothing but what Capture hands on. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Batch, Capture, type CaptureEvent, type CaptureOptions } from '../../lib/capture/capture.js';
import { ImageSpoilt } from '../../lib/capture/image.js';
import type { ResumePoint } from '../../lib/capture/resume-state.js';
import type { PageRun } from '../../lib/capture/streamed-image.js';
import type { Application } from './application.js';

export type Taken = Pick<Batch, 'kind' | 'pageCount' | 'commits' | 'point'> & { readonly pages: number[] };

interface Test {
  after(done: () => void): void;
}

export class CapturedCopy {
  readonly capture: Capture;
  readonly folder: string;
  /** Everything handed on so far. */
  readonly batches: Taken[] = [];
  readonly events: CaptureEvent[] = [];
  #content = Buffer.alloc(0);

  readonly #options: Partial<CaptureOptions>;

  private constructor(database: string, options: Partial<CaptureOptions>) {
    this.folder = dirname(database);
    this.#options = options;
    this.capture = Capture.open({
      database,
      scratchDir: this.folder,
      onEvent: (event) => this.events.push(event),
      ...options,
    });
  }

  /** Closed with the test. */
  static of(t: Test, database: string, options: Partial<CaptureOptions> = {}): CapturedCopy {
    const copy = new CapturedCopy(database, options);
    t.after(() => copy.close());
    return copy;
  }

  /** What a restarted program makes of the state that this one left at one of its batches. */
  restarted(t: Test, point: ResumePoint = this.capture.point()): CapturedCopy {
    const copy = CapturedCopy.of(t, this.capture.files.path, this.#options);
    const { pageSize, sums } = copy.capture;
    copy.#content = Buffer.from(this.#content);
    for (let pgno = 1; pgno * pageSize <= copy.#content.length; pgno++) {
      sums.record(pgno, copy.#content, (pgno - 1) * pageSize, pageSize);
    }
    // Through text, as it is kept on disk.
    const text = JSON.stringify(point, (_, value) => (typeof value === 'bigint' ? `${value}n` : value));
    const revived = JSON.parse(text, (_, value) =>
      typeof value === 'string' && /^-?\d+n$/.test(value) ? BigInt(value.slice(0, -1)) : value,
    ) as ResumePoint;
    copy.capture.resume(revived);
    return copy;
  }

  get content(): Buffer {
    return this.#content;
  }

  /** Reasons of the gaps so far. */
  get gaps(): string[] {
    return this.events.filter(({ type }) => type === 'gap').map(({ message }) => message);
  }

  /**
   * Polls until nothing more is to be had, for `ms` at most, and lays everything over the copy. An image that had to wait
   * for seconds, as beside a writer without a journal, is not taken again for five times as long.
   */
  async catchUp(ms = 60_000): Promise<void> {
    const deadline = performance.now() + ms;
    for (;;) {
      const state = await this.capture.poll();
      this.take();
      if (state === 'current' && !this.capture.hasPending) return;
      if (state === 'wait') await sleep(3);
      assert.ok(performance.now() < deadline, `still '${state}' after ${ms} ms`);
    }
  }

  /**
   * Takes the first image as it is handed on, `between` each of its pieces. Answers whether it was proven; if not, the copy
   * is as it was.
   */
  async stream(between: (run: PageRun) => Promise<void> = async () => {}): Promise<boolean> {
    const { pageSize } = this.capture;
    try {
      const { pageCount, runs } = await this.capture.stream();
      const content = Buffer.alloc(pageCount * pageSize);
      for await (const run of runs) {
        content.set(run.bytes.subarray(0, run.count * pageSize), (run.first - 1) * pageSize);
        await between(run);
      }
      this.#content = content;
      return true;
    } catch (error) {
      if (error instanceof ImageSpoilt) return false;
      throw error;
    }
  }

  /** Takes what is pending and lays it over the copy. */
  take(): Taken | undefined {
    const batch = this.capture.take();
    if (batch === undefined) return undefined;
    const { pageSize, pageCount } = batch;
    const content = Buffer.alloc(pageCount * pageSize);
    this.#content.copy(content);
    const pages: number[] = [];
    for (const { pgno, page } of batch.pages.pages()) {
      assert.ok(pgno <= pageCount, `page ${pgno} beyond the ${pageCount} of the database`);
      content.set(page, (pgno - 1) * pageSize);
      pages.push(pgno);
    }
    this.#content = content;
    const { kind, commits, point } = batch;
    const taken = { kind, pageCount, commits, point, pages };
    this.batches.push(taken);
    this.capture.recycle(batch.pages);
    return taken;
  }

  /** Fails unless the copy is, page for page, what a connection of the application sees. */
  async assertEquals(application: Application, connection = 'main'): Promise<void> {
    this.assertIs(await this.truthOf(application, connection));
  }

  async equals(application: Application): Promise<boolean> {
    return this.differences(await this.truthOf(application, 'main')).length === 0;
  }

  /** What a connection of the application sees, page for page. */
  async truthOf(application: Application, connection: string): Promise<Buffer> {
    const into = join(this.folder, 'truth');
    await application.image(into, connection);
    return readFile(into);
  }

  assertIs(truth: Buffer): void {
    assert.deepEqual(this.differences(truth), []);
  }

  /** What differs from `truth`, in words. Pages that only lie on the free list count for nothing: a cache may hold others. */
  differences(truth: Buffer): string[] {
    const { pageSize } = this.capture;
    const free = freeLeaves(truth, pageSize);
    const found: string[] = [];
    if (truth.length !== this.#content.length) {
      found.push(`${this.#content.length / pageSize} pages, not ${truth.length / pageSize}`);
    }
    for (let at = 0; at < Math.min(truth.length, this.#content.length); at += pageSize) {
      if (!truth.subarray(at, at + pageSize).equals(this.#content.subarray(at, at + pageSize))) {
        const pgno = at / pageSize + 1;
        if (!free.has(pgno)) found.push(`page ${pgno}`);
      }
    }
    return found;
  }

  close(): void {
    this.capture.close();
  }
}

/** Pages of the free list that hold nothing, not even a part of the list. */
function freeLeaves(database: Buffer, pageSize: number): Set<number> {
  const free = new Set<number>();
  if (database.length === 0) return free;
  for (let trunk = database.readUInt32BE(32); trunk !== 0; ) {
    const at = (trunk - 1) * pageSize;
    for (let i = 0; i < database.readUInt32BE(at + 4); i++) free.add(database.readUInt32BE(at + 8 + 4 * i));
    trunk = database.readUInt32BE(at);
  }
  return free;
}
