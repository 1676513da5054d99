/** Is a restored database, page for page, what a live one is now? */

import type { FileHandle } from 'node:fs/promises';
import { Capture } from '../../capture/capture.js';
import type { PageSet } from '../../capture/page-set.js';
import { throwIfAborted } from '../../errors.js';
import { lockPage } from '../../sqlite/database.js';

const READ_SIZE = 1024 * 1024;
/** How long to rest while the live database is in the middle of a change. */
const WAIT_MS = 10;
const PAGES_NAMED = 5;

export interface CompareOptions {
  readonly restored: FileHandle;
  readonly pageSize: number;
  readonly pageCount: number;
  /** Path of the live database. It is read as a backup would, WAL included, without a lock. */
  readonly live: string;
  /** Folder for what memory cannot hold. */
  readonly scratchDir: string;
  readonly signal?: AbortSignal | undefined;
}

/**
 * What differs, in words; undefined if nothing does. Throws NO_DATABASE, DATABASE or FORMAT if the live database cannot
 * be read, CAPTURE if no consistent image of it could be had.
 */
export async function compareWithLive(options: CompareOptions): Promise<string | undefined> {
  const { pageSize, pageCount, live, signal } = options;
  const capture = Capture.open({
    database: live,
    scratchDir: options.scratchDir,
    fileEvents: false,
    ...(signal && { signal }),
  });
  try {
    if (capture.pageSize !== pageSize) {
      return `pages of ${pageSize} bytes were restored, ${live} has pages of ${capture.pageSize}`;
    }
    // The restored pages play the part of the last replicated state: what the image then differs in is the answer.
    await recordSums(options, capture);
    while ((await capture.poll()) === 'wait') await capture.wait(WAIT_MS, signal);
    const difference = capture.take();
    if (difference === undefined) return undefined;
    const words: string[] = [];
    if (difference.pageCount !== pageCount) {
      words.push(`${pageCount} pages were restored, ${live} has ${difference.pageCount}`);
    }
    const { size } = difference.pages;
    if (size > 0)
      words.push(
        `${size === 1 ? 'a page differs' : `${size} pages differ`} from ${live}: ${firstNumbers(difference.pages)}`,
      );
    return words.join('; ');
  } finally {
    capture.close();
  }
}

function firstNumbers(pages: PageSet): string {
  const numbers: string[] = [];
  for (const { pgno } of pages.pages()) {
    if (numbers.length === PAGES_NAMED) return `${numbers.join(', ')}, …`;
    numbers.push(String(pgno));
  }
  return numbers.join(', ');
}

async function recordSums(options: CompareOptions, capture: Capture): Promise<void> {
  const { restored, pageSize, pageCount, signal } = options;
  const { sums } = capture;
  const buffer = new Uint8Array(READ_SIZE);
  const pagesPerRead = READ_SIZE / pageSize;
  const skipped = lockPage(pageSize);
  sums.pageCount = pageCount;
  for (let first = 1; first <= pageCount; first += pagesPerRead) {
    throwIfAborted(signal, 'the comparison');
    const { bytesRead } = await restored.read(buffer, 0, READ_SIZE, (first - 1) * pageSize);
    for (let at = 0; at + pageSize <= bytesRead; at += pageSize) {
      const pgno = first + at / pageSize;
      if (pgno !== skipped) sums.record(pgno, buffer, at, pageSize);
    }
  }
}
