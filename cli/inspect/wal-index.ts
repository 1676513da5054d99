import {
  decodeWalIndex,
  WAL_INDEX_HEADER_SIZE,
  type WalIndexHeader,
  type WalIndexResult,
} from '../../lib/sqlite/wal-index.js';
import type { InputFile } from './input-file.js';
import { hexWords, Report } from './report.js';

const COPY_SIZE = 48;
const UNUSED_MARK = 0xffffffff;

const REASONS = {
  short: `fewer than ${WAL_INDEX_HEADER_SIZE} bytes, the next connection fills it`,
  torn: 'the two copies differ: a writer is at it, or died at it',
  uninitialised: 'not initialised, the next connection rebuilds it from the WAL',
  version: 'of an unknown version',
  checksum: 'the checksum is wrong, the next connection rebuilds it from the WAL',
} as const;

/** The header if its copies agree, else each copy by itself; backfill and read marks. */
export async function inspectWalIndex(file: InputFile): Promise<Report> {
  const report = new Report('WAL index', file.path, file.size);
  const bytes = await file.read(new Uint8Array(WAL_INDEX_HEADER_SIZE), 0);
  const result = decodeWalIndex(bytes);
  if (!result.ok) report.problems.push(`the header: ${REASONS[result.reason]}`);
  if (bytes.length < WAL_INDEX_HEADER_SIZE) return report;

  if (result.ok) addHeader(report, result.header);
  else {
    report.table(
      'copies',
      ['copy', 'state', 'change count', 'max frame', 'page count', 'page size', 'salts', 'frame checksum'],
      [1, 2].map((copy) => [copy, ...copyCells(decodeCopy(bytes, (copy - 1) * COPY_SIZE))]),
      2,
    );
  }
  return report;
}

function addHeader(report: Report, header: WalIndexHeader): void {
  const { backfill, readMarks } = header;
  report.fact('copies', 'equal');
  report.fact('changeCount', header.changeCount);
  report.fact('pageSize', header.pageSize);
  report.fact('maxFrame', header.maxFrame);
  report.fact('pageCount', header.pageCount);
  report.fact('frameChecksum', hexWords(header.frameChecksum1, header.frameChecksum2));
  report.fact('salts', hexWords(header.salt1, header.salt2));
  report.fact('checksums', header.bigEndianChecksum ? 'big-endian' : 'little-endian');
  report.fact('backfill', backfill, `${backfill} of ${header.maxFrame} frames are in the database`);
  report.fact('backfillAttempted', header.backfillAttempted);
  const marks = readMarks.map((mark) => (mark === UNUSED_MARK ? null : mark));
  report.fact('readMarks', marks, marks.map((mark) => mark ?? '-').join(' '));
}

function decodeCopy(bytes: Uint8Array, at: number): WalIndexResult {
  const alone = bytes.slice();
  alone.set(bytes.subarray(at, at + COPY_SIZE), 0);
  alone.set(bytes.subarray(at, at + COPY_SIZE), COPY_SIZE);
  return decodeWalIndex(alone);
}

function copyCells(result: WalIndexResult): (string | number)[] {
  if (!result.ok) return [result.reason];
  const h = result.header;
  return [
    'sound',
    h.changeCount,
    h.maxFrame,
    h.pageCount,
    h.pageSize,
    hexWords(h.salt1, h.salt2),
    hexWords(h.frameChecksum1, h.frameChecksum2),
  ];
}
