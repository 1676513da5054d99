/** Recognises a file by its content, and by its name only where the content says nothing. */

import { FormatError } from '../../lib/errors.js';
import { inspectDatabase } from './database.js';
import { InputFile } from './input-file.js';
import { inspectJournal } from './journal.js';
import { inspectLtx } from './ltx.js';
import { Report } from './report.js';
import { inspectWal } from './wal.js';
import { inspectWalIndex } from './wal-index.js';

type Inspector = (file: InputFile) => Promise<Report>;

const BY_CONTENT: readonly (readonly [beginning: RegExp, inspect: Inspector])[] = [
  [/^53514c69746520666f726d6174203300/, inspectDatabase],
  [/^377f068[23]/, inspectWal],
  [/^d9d505f920a163d7/, inspectJournal],
  [/^4c545831/, inspectLtx],
  [/^(18e22d00|002de218)/, inspectWalIndex],
];

/** A committed or unsynced journal and a fresh index begin with zeros; a damaged file may begin with anything. */
const BY_NAME: readonly (readonly [ending: string, inspect: Inspector])[] = [
  ['-wal', inspectWal],
  ['-shm', inspectWalIndex],
  ['-journal', inspectJournal],
  ['.ltx', inspectLtx],
];

/**
 * Decodes a file and says whether it is sound. Throws JetliteError if it cannot be read, FormatError if it is none of
 * the files that Jetlite knows.
 */
export async function inspect(path: string, signal: AbortSignal): Promise<Report> {
  const file = await InputFile.open(path, signal);
  try {
    if (file.size === 0) return path.endsWith('.ltx') ? await inspectLtx(file) : inspectNothing(file);
    const beginning = Buffer.from(await file.read(new Uint8Array(16), 0)).toString('hex');
    const inspector =
      BY_CONTENT.find(([pattern]) => pattern.test(beginning))?.[1] ??
      BY_NAME.find(([ending]) => path.endsWith(ending))?.[1];
    if (inspector === undefined) {
      throw new FormatError(
        path,
        `expected a SQLite database, WAL, WAL index or journal, or an LTX file, found bytes ${beginning}`,
        { hint: 'An encrypted or damaged database begins with other bytes too.' },
      );
    }
    return await inspector(file);
  } finally {
    await file.close();
  }
}

function inspectNothing(file: InputFile): Report {
  const report = new Report('empty file', file.path, 0);
  report.notes.push(
    'to SQLite an empty file is a database without tables, a WAL without commits or a journal that is not hot',
  );
  return report;
}
