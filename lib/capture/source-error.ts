/** What can be wrong with a source as a whole, in words. */

import { FormatError, JetliteError } from '../errors.js';

export function nothingThere(database: string): JetliteError {
  return new JetliteError('NO_DATABASE', `${database}: the file is empty, expected a SQLite database`, {
    hint: 'Create a table in it first; an empty file has no state to keep.',
  });
}

/** What is wrong with the files, with the name of the database before it. */
export function naming(database: string, error: unknown): unknown {
  if (!(error instanceof FormatError)) return error;
  return new JetliteError('FORMAT', `${database}: ${error.message}`, {
    cause: error,
    hint: error.hint ?? 'Name a sound SQLite database.',
  });
}

export function pageSizeChanged(database: string, from: number, to: number): JetliteError {
  return new JetliteError('DATABASE', `${database}: the page size changed from ${from} to ${to} bytes`, {
    hint: 'A chain of LTX files has one page size: replicate this database to a new replica path.',
  });
}
