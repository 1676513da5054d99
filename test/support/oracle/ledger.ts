/**
 * The commits a writer had acknowledged, read from the file it appends to: 24 bytes each (seq, digest, time in
 * nanoseconds; little-endian u64s), seq ascending. A copy that claims a state which is not in here was never committed.
 */
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

const RECORD_SIZE = 24;

/** One committed state. `digest` is 16 hex digits. */
export interface CommittedState {
  readonly seq: number;
  readonly digest: string;
}

export class Ledger {
  readonly #bytes: Buffer;

  constructor(path: string) {
    const bytes = readFileSync(path);
    this.#bytes = bytes.subarray(0, bytes.length - (bytes.length % RECORD_SIZE));
  }

  /** Number of records. */
  get length(): number {
    return this.#bytes.length / RECORD_SIZE;
  }

  at(index: number): CommittedState {
    const offset = index * RECORD_SIZE;
    return {
      seq: Number(this.#bytes.readBigUInt64LE(offset)),
      digest: this.#bytes
        .readBigUInt64LE(offset + 8)
        .toString(16)
        .padStart(16, '0'),
    };
  }

  /** When the commit at `index` was acknowledged, milliseconds since the epoch. */
  timeMs(index: number): number {
    return Number(this.#bytes.readBigUInt64LE(index * RECORD_SIZE + 16)) / 1e6;
  }

  get newest(): CommittedState | undefined {
    return this.length === 0 ? undefined : this.at(this.length - 1);
  }

  /** The digest that commit `seq` left; undefined if it was never acknowledged. */
  digestOf(seq: number): string | undefined {
    const index = this.#search((at) => this.at(at).seq < seq);
    return index < this.length && this.at(index).seq === seq ? this.at(index).digest : undefined;
  }

  /** When commit `seq` was acknowledged, milliseconds since the epoch; undefined if it never was. */
  acknowledgedMs(seq: number): number | undefined {
    const index = this.#search((at) => this.at(at).seq < seq);
    return index < this.length && this.at(index).seq === seq ? this.timeMs(index) : undefined;
  }

  /** The last state acknowledged at or before a moment (milliseconds since the epoch). */
  standingAt(timeMs: number): CommittedState | undefined {
    const index = this.#search((at) => this.timeMs(at) <= timeMs);
    return index === 0 ? undefined : this.at(index - 1);
  }

  /** The first index for which `before` is false. */
  #search(before: (index: number) => boolean): number {
    let low = 0;
    let high = this.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (before(middle)) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** The ledger once commit `seq` is in it, as far as that comes: a commit is captured before its writer has noted it. */
export async function ledgerWith(read: () => Ledger, seq: number): Promise<Ledger> {
  for (let tries = 0; ; tries++) {
    const ledger = read();
    if ((ledger.newest?.seq ?? 0) >= seq || tries === 100) return ledger;
    await delay(10);
  }
}
