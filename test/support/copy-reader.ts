/** A reader of a live copy in a process of its own (oracle/reader.py): each state that it sees is checked. */

import type { TestContext } from 'node:test';
import { JsonLinesChild } from './json-lines.js';
import { python } from './oracle/python.js';

export interface Readings {
  readonly reads: number;
  readonly states: number;
  /** Sequence number of the last state. */
  readonly last: number;
  readonly wrong: readonly string[];
}

export class CopyReader {
  readonly #child: JsonLinesChild;

  private constructor(child: JsonLinesChild) {
    this.#child = child;
  }

  /** Begins to read at once, in transactions of so many seconds, as another user if root says so. */
  static start(
    t: TestContext,
    copy: string,
    ledger: string,
    pauseSeconds: number,
    user?: number,
  ): Promise<CopyReader> {
    const who = user === undefined ? [] : [String(user)];
    const [program, args] = python('reader.py', copy, ledger, String(pauseSeconds), ...who);
    return CopyReader.run(t, [program, ...args]);
  }

  /** Any program that reads, checks and answers as reader.py does. */
  static async run(t: TestContext, [program, ...args]: readonly string[]): Promise<CopyReader> {
    const child = new JsonLinesChild(program!, args);
    t.after(() => child.kill());
    await child.next();
    return new CopyReader(child);
  }

  /** What it has seen. */
  async stop(): Promise<Readings> {
    const answer = await this.#child.ask('stop');
    await this.#child.ended;
    return answer as unknown as Readings;
  }

  kill(): Promise<void> {
    return this.#child.kill();
  }
}
