import { existsSync } from 'node:fs';
import { FormatError } from '../../lib/errors.js';
import {
  DATABASE_HEADER_SIZE,
  type DatabaseHeader,
  databasePageCount,
  decodeDatabaseHeader,
  lockPage,
} from '../../lib/sqlite/database.js';
import type { InputFile } from './input-file.js';
import { Report } from './report.js';

const MODES = new Map([
  [1, 'rollback journal'],
  [2, 'WAL'],
]);

/** The header, and whether the file is as long as it says. The pages are for `jetlite verify`. */
export async function inspectDatabase(file: InputFile): Promise<Report> {
  const report = new Report('database', file.path, file.size);
  const bytes = await file.read(new Uint8Array(DATABASE_HEADER_SIZE), 0);
  let header: DatabaseHeader;
  try {
    header = decodeDatabaseHeader(bytes);
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    report.problems.push(error.message);
    return report;
  }
  const { pageSize, writeVersion, readVersion, libraryVersion } = header;
  const pagesByLength = file.size / pageSize;
  const lock = lockPage(pageSize);
  const pages = databasePageCount(header, file.size);
  report.fact('pageSize', pageSize);
  report.fact('reservedBytes', header.reservedBytes);
  report.fact('writeVersion', writeVersion, withName(writeVersion, MODES.get(writeVersion)));
  report.fact('readVersion', readVersion, withName(readVersion, MODES.get(readVersion)));
  report.fact('changeCounter', header.changeCounter);
  report.fact('versionValidFor', header.versionValidFor);
  report.fact('pagesByHeader', header.pageCount);
  report.fact('pagesByLength', pagesByLength);
  report.fact('pages', pages);
  report.fact('lockPage', lock, withName(lock, lock > pages ? 'beyond the end' : 'never used'));
  report.fact('libraryVersion', libraryVersion, withName(libraryVersion, versionName(libraryVersion)));

  const beside = ['-wal', '-shm', '-journal'].filter((suffix) => existsSync(file.path + suffix));
  report.fact('beside', beside, beside.join(' ') || 'nothing');
  if (beside.includes('-wal')) report.notes.push(`the newest commits may be in ${file.path}-wal`);
  if (beside.includes('-journal')) {
    report.notes.push(`if ${file.path}-journal is hot, there are pages here that SQLite will roll back`);
  }
  if (pagesByLength > pages) {
    report.notes.push(
      'the file is longer than its database: grown in chunks, or by a transaction that never ended',
    );
  }
  if (pagesByLength < pages) {
    const short = `expected ${pages} pages of ${pageSize} bytes, found ${pagesByLength}`;
    // A checkpoint under way writes page 1 before pages at the end.
    if (beside.includes('-wal')) report.notes.push(`${short}: the rest must be in the WAL`);
    else report.problems.push(`the length: ${short}`);
  }
  return report;
}

function withName(value: number, name: string | undefined): string {
  return name === undefined ? String(value) : `${value} (${name})`;
}

function versionName(version: number): string {
  return `${Math.floor(version / 1_000_000)}.${Math.floor(version / 1000) % 1000}.${version % 1000}`;
}
