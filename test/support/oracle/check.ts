/** Proof that a database file is exactly one committed state of the oracle writer (check.py), and byte equality. */
import { open } from 'node:fs/promises';
import { JsonLinesChild } from '../json-lines.js';
import type { CommittedState } from './ledger.js';
import { python } from './python.js';

export interface ProvenState extends CommittedState {
  readonly pages: number;
}

/** Keeps one Python process for many databases. */
export class OracleChecker {
  readonly #child = new JsonLinesChild(...python('check.py'));

  /**
   * integrity_check, every row's digest, all invariants. Nothing is written beside the database; a `-wal` or
   * `-journal` beside it counts as part of it. Throws, with the reason, if it is not exactly one committed state.
   */
  async prove(database: string): Promise<ProvenState> {
    const answer = await this.#child.ask(database);
    if (answer.ok !== true) throw new Error(`${database} is no committed state: ${answer.reason}`);
    return {
      seq: answer.seq as number,
      digest: answer.digest as string,
      pages: answer.pages as number,
    };
  }

  async close(): Promise<void> {
    this.#child.endInput();
    await this.#child.ended;
  }
}

/** `prove` of one database with a process of its own. */
export async function proveState(database: string): Promise<ProvenState> {
  const checker = new OracleChecker();
  try {
    return await checker.prove(database);
  } finally {
    await checker.close();
  }
}

/**
 * Where two files first differ, in words; undefined if they are equal to the byte. The source of a comparison must
 * be checkpointed (TRUNCATE) and its writer stopped.
 */
export async function firstDifference(expected: string, found: string): Promise<string | undefined> {
  const a = await open(expected);
  const b = await open(found);
  try {
    const [sizeA, sizeB] = [(await a.stat()).size, (await b.stat()).size];
    const header = Buffer.alloc(100);
    await a.read(header, 0, 100, 0);
    const pageSize = header.readUInt16BE(16) === 1 ? 65536 : header.readUInt16BE(16) || 4096;
    const blockA = Buffer.alloc(1 << 20);
    const blockB = Buffer.alloc(1 << 20);
    for (let offset = 0; offset < Math.min(sizeA, sizeB); offset += blockA.length) {
      const readA = (await a.read(blockA, 0, blockA.length, offset)).bytesRead;
      const readB = (await b.read(blockB, 0, blockB.length, offset)).bytesRead;
      const length = Math.min(readA, readB);
      if (blockA.compare(blockB, 0, length, 0, length) === 0) continue;
      let at = 0;
      while (blockA[at] === blockB[at]) at++;
      return `page ${Math.floor((offset + at) / pageSize) + 1} differs (byte ${offset + at})`;
    }
    return sizeA === sizeB ? undefined : `${sizeB} bytes, expected ${sizeA}`;
  } finally {
    await a.close();
    await b.close();
  }
}
