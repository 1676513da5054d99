/** What `jetlite inspect` found, and how it is shown: aligned lines for people, one document for programs. */

import { formatTable } from '../format.js';

export interface Fact {
  /** In camel case: the key in the JSON document, and the words of the line's label. */
  readonly key: string;
  /** For JSON. */
  readonly value: unknown;
  /** For people, where the plain value would not do. */
  readonly text: string;
}

export interface Table {
  readonly key: string;
  readonly columns: readonly string[];
  readonly rows: readonly (readonly (string | number)[])[];
  /** How many rows there are, if not all are here. */
  readonly total: number;
}

export class Report {
  readonly facts: Fact[] = [];
  readonly tables: Table[] = [];
  /** Worth knowing; nothing is wrong. */
  readonly notes: string[] = [];
  /** Each names a place, what was expected and what was found. One of them makes the file unsound. */
  readonly problems: string[] = [];

  constructor(
    /** What the file is, as the first line says it. */
    readonly kind: 'database' | 'WAL' | 'WAL index' | 'rollback journal' | 'LTX file' | 'empty file',
    readonly path: string,
    /** Bytes. */
    readonly size: number,
  ) {}

  get isSound(): boolean {
    return this.problems.length === 0;
  }

  fact(key: string, value: unknown, text = String(value)): void {
    this.facts.push({ key, value, text });
  }

  table(
    key: string,
    columns: readonly string[],
    rows: readonly (readonly (string | number)[])[],
    total: number,
  ): void {
    this.tables.push({ key, columns, rows, total });
  }

  toJson(): object {
    return {
      file: this.path,
      kind: this.kind,
      size: this.size,
      sound: this.isSound,
      problems: this.problems,
      notes: this.notes,
      ...Object.fromEntries(this.facts.map(({ key, value }) => [key, value])),
      ...Object.fromEntries(
        this.tables.map(({ key, columns, rows }) => [
          key,
          rows.map((row) => Object.fromEntries(columns.map((column, i) => [camelCase(column), row[i]]))),
        ]),
      ),
    };
  }

  toText(): string {
    const verdict = this.isSound ? 'sound' : 'NOT sound';
    const lines = [`${this.path}: ${this.kind}, ${this.size} bytes, ${verdict}`];
    const width = Math.max(0, ...this.facts.map(({ key }) => words(key).length));
    for (const { key, text } of this.facts) lines.push(`  ${words(key).padEnd(width)}  ${text}`.trimEnd());
    for (const table of this.tables) {
      const shown = table.rows.map((row) => row.map(String));
      lines.push(
        ...formatTable(table.columns, shown)
          .split('\n')
          .map((line) => `  ${line}`),
      );
      if (table.total > shown.length) lines.push(`  and ${table.total - shown.length} more`);
    }
    for (const note of this.notes) lines.push(`note: ${note}`);
    for (const problem of this.problems) lines.push(`problem: ${problem}`);
    return lines.join('\n');
  }
}

/** "checkpointSequence" → "checkpoint sequence"; a run of capitals stays as it is. */
function words(key: string): string {
  return key.replace(/[A-Z]+/g, (capitals) => ` ${capitals.length > 1 ? capitals : capitals.toLowerCase()}`);
}

function camelCase(text: string): string {
  return text.replace(/ (.)/g, (_, letter: string) => letter.toUpperCase());
}

/** As a hex dump of the file shows them: "8a0b1c2d 00112233". */
export function hexWords(...values: readonly number[]): string {
  return values.map((value) => value.toString(16).padStart(8, '0')).join(' ');
}
