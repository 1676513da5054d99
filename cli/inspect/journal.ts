import { existsSync } from 'node:fs';
import {
  decodeJournalHeader,
  decodeSuperJournalName,
  JOURNAL_HEADER_SIZE,
  type JournalEnd,
  JournalScanner,
  SUPER_JOURNAL_TAIL_SIZE,
} from '../../lib/sqlite/journal.js';
import { type InputFile, PIECE_SIZE } from './input-file.js';
import { hexWords, Report } from './report.js';

/** What SQLite before 3.5.8, which names no page size in its journals, used unless told otherwise. */
const OLD_PAGE_SIZE = 1024;
const SHOWN_SEGMENTS = 50;

const ENDS: Readonly<Record<JournalEnd, string>> = {
  'no header': 'no further header',
  'page number': 'no record, by its page number',
  checksum: 'a checksum that is not the record’s',
  truncated: 'the file ends inside a record',
};

interface Segment {
  offset: number;
  declared: number;
  nonce: number;
  records: number;
}

/** Headers, records, the super-journal, and whether the journal is hot as far as it says itself. */
export async function inspectJournal(file: InputFile): Promise<Report> {
  const report = new Report('rollback journal', file.path, file.size);
  const head = await file.read(new Uint8Array(JOURNAL_HEADER_SIZE), 0);
  const header = decodeJournalHeader(head);
  if (header === undefined) {
    const reason = whyNotHot(head);
    report.fact('hot', false, `no: ${reason.text}`);
    if (!reason.regular) report.problems.push(`the header: ${reason.text}; SQLite undoes nothing from it`);
    return report;
  }
  report.fact(
    'pageSize',
    header.pageSize,
    header.pageSize === 0 ? "0 (the database's)" : String(header.pageSize),
  );
  report.fact('sectorSize', header.sectorSize);
  report.fact('initialPageCount', header.initialPageCount);
  await scanSegments(file, report);

  const tail = new Uint8Array(Math.min(SUPER_JOURNAL_TAIL_SIZE, file.size));
  const superJournal = decodeSuperJournalName(await file.read(tail, file.size - tail.length));
  const isThere = superJournal !== undefined && existsSync(superJournal);
  report.fact(
    'superJournal',
    superJournal === undefined ? null : { path: superJournal, exists: isThere },
    superJournal === undefined ? 'none' : `${superJournal} (${isThere ? 'exists' : 'does not exist here'})`,
  );
  const hot = superJournal === undefined || isThere;
  report.fact(
    'hot',
    hot,
    hot
      ? 'yes, if no connection is writing and the database is not empty'
      : 'no: its super-journal is gone, so the transaction was committed',
  );
  return report;
}

function whyNotHot(head: Uint8Array): { text: string; regular: boolean } {
  if (head.length < JOURNAL_HEADER_SIZE) {
    return { text: `expected ${JOURNAL_HEADER_SIZE} bytes, found ${head.length}`, regular: false };
  }
  if (head.every((byte) => byte === 0))
    return { text: 'the header is zeroed, the transaction has ended', regular: true };
  if (head.subarray(0, 12).every((byte) => byte === 0)) {
    return { text: 'the header is not yet written in full, the database is unchanged', regular: true };
  }
  return { text: 'another magic, or a page or sector size that cannot be', regular: false };
}

async function scanSegments(file: InputFile, report: Report): Promise<void> {
  const scanner = new JournalScanner(file.size, OLD_PAGE_SIZE);
  const segments: Segment[] = [];
  let last: Segment | undefined;
  let segmentCount = 0;
  let records = 0;
  let beyond = 0;
  const piece = new Uint8Array(PIECE_SIZE);
  let bytes: Uint8Array = piece.subarray(0, 0);
  let from = 0;
  while (scanner.need > 0) {
    const at = scanner.position - from;
    if (at < 0 || at + scanner.need > bytes.length) {
      from = scanner.position;
      bytes = await file.read(piece, from);
      if (bytes.length < scanner.need) break; // cut while it was being read
      continue;
    }
    const offset = scanner.position;
    const kind = scanner.next(bytes, at);
    if (kind === 'header') {
      const { recordCount: declared, nonce } = scanner.segment!;
      last = { offset, declared, nonce, records: 0 };
      if (segmentCount++ < SHOWN_SEGMENTS) segments.push(last);
    } else if (kind !== 'end') {
      last!.records++;
      if (kind === 'record') records++;
      else beyond++;
    }
  }
  report.fact('segments', segmentCount);
  report.fact('records', records);
  report.fact('recordsBeyond', beyond, beyond === 0 ? '0' : `${beyond} of pages that were not there before`);
  const why = scanner.end === undefined ? 'cut while it was being read' : ENDS[scanner.end];
  report.fact('ends', { at: scanner.position, why }, `at byte ${scanner.position}: ${why}`);
  report.table(
    'segmentList',
    ['offset', 'declared', 'records', 'nonce'],
    segments.map((s) => [s.offset, s.declared, s.records, hexWords(s.nonce)]),
    segmentCount,
  );
  if (last !== undefined && last.declared >= 0 && last.records < last.declared) {
    report.problems.push(
      `record ${last.records + 1} of the segment at byte ${last.offset}: ${why}, ` +
        `expected ${last.declared} records; SQLite undoes only what comes before`,
    );
  }
}
