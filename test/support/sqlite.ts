/** SQLite's own shell as a test's writer, reader and judge: scripts, sessions that stay open, comparison of content. */

import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { peer } from './peers.js';

interface Test {
  after(done: () => Promise<void>): void;
  skip(message?: string): void;
}

/** The shell, or undefined (and the test skipped) where none is installed. */
export function sqliteShell(t: Test): SqliteShell | undefined {
  const program = peer(t, 'sqlite3');
  return program === undefined ? undefined : new SqliteShell(t, program);
}

/** What `contentOf` says of each table, with the schema and the header's settings as entries of their own. */
export type Content = ReadonlyMap<string, string>;

export class SqliteShell {
  readonly #test: Test;
  readonly #program: string;

  constructor(test: Test, program: string) {
    this.#test = test;
    this.#program = program;
  }

  /** Runs SQL and dot commands; resolves with the output, one row a line. Throws with SQLite's words on any error. */
  async run(database: string, script: string, options: { readOnly?: boolean } = {}): Promise<string> {
    const flags = ['-batch', '-bail', ...(options.readOnly ? ['-readonly'] : [])];
    const child = spawn(this.#program, [...flags, database], { stdio: ['pipe', 'pipe', 'pipe'] });
    let output = '';
    let errors = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      errors += text;
    });
    child.stdin.on('error', () => {}); // It ends at the first error, before it has read everything.
    child.stdin.end(`${script}\n`);
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', resolve);
    });
    if (code !== 0) throw new Error(`sqlite3 ${database}: ${errors.trim() || `exit code ${code}`}`);
    return output;
  }

  /** A shell that keeps its connection, for transactions that stay open; ended with the test. */
  async open(database: string): Promise<SqliteSession> {
    // One pipe for both outputs, so that an error stands where it happened. `exec` keeps the process id.
    const child = spawn('/bin/sh', ['-c', 'exec "$0" "$@" 2>&1', this.#program, '-batch', database], {
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    const session = new SqliteSession(child);
    this.#test.after(() => session.kill());
    await session.run('');
    return session;
  }

  /**
   * A digest of every table's rows, of the schema and of the settings in the header. The database is opened
   * read-only; with a WAL beside it, what is in the WAL counts.
   */
  async contentOf(database: string): Promise<Content> {
    const settings = ['page_size', 'encoding', 'user_version', 'application_id', 'auto_vacuum'];
    const names = await this.run(
      database,
      "SELECT quote(name) FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY name;",
      { readOnly: true },
    );
    const script = [
      ...settings.map((name) => `SELECT '${name}', ${name} FROM pragma_${name};`),
      `SELECT 'schema', hex(sha3_query('SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema'));`,
      ...names.split('\n').filter(Boolean).map(tableDigest),
    ];
    const lines = (await this.run(database, script.join('\n'), { readOnly: true }))
      .split('\n')
      .filter(Boolean);
    return new Map(
      lines.map((line) => {
        const end = line.lastIndexOf('|');
        return [line.slice(0, end), line.slice(end + 1)];
      }),
    );
  }

  /** Which tables (or schema or settings) of two databases differ; empty if their contents are equal. */
  async differences(expected: string, found: string): Promise<string[]> {
    const [a, b] = [await this.contentOf(expected), await this.contentOf(found)];
    return [...new Set([...a.keys(), ...b.keys()])].filter((name) => a.get(name) !== b.get(name));
  }
}

export class SqliteSession {
  /** Resolves when the shell has ended. */
  readonly ended: Promise<void>;
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #lines: AsyncIterator<string>;
  #questions = 0;

  constructor(child: ChildProcessByStdio<Writable, Readable, null>) {
    this.#child = child;
    child.stdin.on('error', () => {}); // The pipe of a killed shell.
    this.#lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    this.ended = new Promise((resolve) => child.once('close', () => resolve()));
  }

  get pid(): number {
    return this.#child.pid ?? -1;
  }

  /** Runs statements and resolves with their rows, a line each. Throws at SQLite's first error. */
  async run(script: string): Promise<string[]> {
    const end = `-- end of answer ${++this.#questions}`;
    this.#child.stdin.write(`${script}\n.print '${end}'\n`);
    const rows: string[] = [];
    for (;;) {
      const line = await this.#lines.next();
      if (line.done) throw new Error(`the shell ended in: ${script}`);
      if (line.value === end) break;
      rows.push(line.value);
    }
    const error = rows.find((row) => /^(Error|(Runtime|Parse) error)\b/.test(row));
    if (error !== undefined) throw new Error(`${error} in: ${script}`);
    return rows;
  }

  /** Closes the connection as an application would: the last one checkpoints and removes the WAL. */
  async close(): Promise<void> {
    this.#child.stdin.end('.quit\n');
    await this.ended;
  }

  /** kill -9, and waits until it is gone. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.ended;
  }
}

/** `quoted` is the table's name as an SQL string. NOT INDEXED keeps both sides to the same order of rows. */
function tableDigest(quoted: string): string {
  const name = quoted.slice(1, -1).replaceAll("''", "'");
  const identifier = `"${name.replaceAll('"', '""')}"`;
  const query = `SELECT * FROM ${identifier} NOT INDEXED`.replaceAll("'", "''");
  return `SELECT 'table ' || ${quoted}, hex(sha3_query('${query}'));`;
}
