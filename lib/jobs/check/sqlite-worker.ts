/**
 * The thread in which SQLite looks at a database: an integrity check of a large file takes minutes, in which the main
 * thread stays free to be interrupted. Started by sqlite-check.ts only.
 */

import { parentPort, workerData } from 'node:worker_threads';
import sqlite3InitModule, { type Database, type Sqlite3Static } from '@sqlite.org/sqlite-wasm';
import type { CheckReply, CheckTask } from './sqlite-check.js';
import { openReadOnlyFile } from './sqlite-vfs.js';

const MIN_CACHE_BYTES = 8 * 1024 * 1024;
/** Measured on 740 MB with an index of random keys: 32, 64, 128 MB take 11.6, 9.1, 7.4 s of CPU. */
const MAX_CACHE_BYTES = 64 * 1024 * 1024;
/** Of the database. On 165 MB: a cache of 64, 32, 16 MB takes 3.3, 3.6, 3.8 s of CPU and 170, 132, 128 MB in all. */
const CACHED_PART = 1 / 8;
const MAX_FINDINGS = 100;
const MAX_ANSWER_LENGTH = 1024 * 1024;

async function check(task: CheckTask): Promise<CheckReply> {
  const sqlite3 = await sqlite3InitModule();
  let file: ReturnType<typeof openReadOnlyFile>;
  try {
    file = openReadOnlyFile(sqlite3, task.path);
  } catch (error) {
    return { failure: (error as Error).message };
  }
  try {
    const reply = look(sqlite3, file, task);
    const failure = file.failure();
    return failure === undefined ? reply : { failure: (failure as Error).message };
  } finally {
    file.close();
  }
}

function look(
  sqlite3: Sqlite3Static,
  file: { uri: string; vfs: string; size: number },
  task: CheckTask,
): CheckReply {
  const version = sqlite3.version.libVersion;
  let db: Database;
  try {
    db = new sqlite3.oo1.DB({ filename: file.uri, flags: 'r', vfs: file.vfs });
  } catch (error) {
    return { findings: [sqliteMessage(error)], answers: [], version };
  }
  try {
    const findings = prepare(db, file.size) ?? (task.mode === 'none' ? [] : integrity(db, task.mode));
    const answers = task.queries.map((query) => answer(sqlite3, db, query));
    return { findings, answers, version };
  } finally {
    db.close();
  }
}

/** Sets the cache, which reads the database's first page; what is wrong if that cannot be done. */
function prepare(db: Database, size: number): string[] | undefined {
  const cacheBytes = Math.min(MAX_CACHE_BYTES, Math.max(MIN_CACHE_BYTES, size * CACHED_PART));
  try {
    db.exec(`PRAGMA cache_size = -${Math.floor(cacheBytes / 1024)}; PRAGMA temp_store = MEMORY`);
    return undefined;
  } catch (error) {
    return [sqliteMessage(error)];
  }
}

/** What SQLite complains about, a line each; nothing if the database is sound. */
function integrity(db: Database, mode: 'quick' | 'full'): string[] {
  try {
    const pragma = mode === 'full' ? 'integrity_check' : 'quick_check';
    const rows = db.selectValues(`PRAGMA ${pragma}(${MAX_FINDINGS})`).map(String);
    return rows.length === 1 && rows[0] === 'ok' ? [] : rows;
  } catch (error) {
    return [sqliteMessage(error)];
  }
}

/** Rows as lines, columns joined with `|`, each value as SQLite writes it, NULL as nothing: as its own shell prints them. */
function answer(sqlite3: Sqlite3Static, db: Database, query: string): { text: string } | { error: string } {
  const { capi } = sqlite3;
  const lines: string[] = [];
  let length = 0;
  try {
    const statement = db.prepare(query);
    try {
      while (statement.step()) {
        const values: string[] = [];
        for (let i = 0; i < statement.columnCount; i++)
          values.push(capi.sqlite3_column_text(statement, i) ?? '');
        const line = values.join('|');
        length += line.length + 1;
        if (length > MAX_ANSWER_LENGTH) return { error: 'the answer is longer than 1 MB' };
        lines.push(line);
      }
    } finally {
      statement.finalize();
    }
  } catch (error) {
    return { error: sqliteMessage(error) };
  }
  return { text: lines.join('\n') };
}

/** Without the prefix that repeats the name of the result code. */
function sqliteMessage(error: unknown): string {
  return (error as Error).message.replace(/^(?:SQLITE_\w+: )?sqlite3 result code \d+: /, '');
}

parentPort?.postMessage(await check(workerData as CheckTask));
