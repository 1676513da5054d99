/**
 * Proof of a replica of which files are merged and removed: everything that it offers to restore is a committed state of
 * the oracle writer, the right one for its time, and what it does not offer is refused.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { JetliteError } from '../../../lib/errors.js';
import { type ReachableState, type RestoreWish, reachableStates } from '../../../lib/jobs/plan.js';
import { restore } from '../../../lib/jobs/restore.js';
import { formatTxid } from '../../../lib/ltx/header.js';
import type { LtxFileInfo, Replica } from '../../../lib/replica/replica.js';
import { replicaWith } from '../homes.js';
import type { Random } from '../random.js';
import type { OracleChecker } from './check.js';
import { type Ledger, ledgerWith } from './ledger.js';

export interface OfferOptions {
  readonly replica: Replica;
  readonly checker: OracleChecker;
  /** Where restored files go meanwhile. */
  readonly folder: string;
  /** The commits of the writer as they are acknowledged by now. */
  readonly ledger: () => Ledger;
  readonly random: Random;
  /** About so many states and so many moments are restored, chosen at random, the first and the last among them. */
  readonly limit: number;
  /**
   * Whether a replicator is at work in the replica: what is offered may be gone when it is asked for, and what was not
   * offered may be by then. Each wish is then judged by the files that the restore itself saw last.
   */
  readonly moving: boolean;
  /** Whether files may have been lost for good. What lies between a loss and what healed it cannot be had. */
  readonly lossy?: boolean | undefined;
}

export interface OfferProof {
  /** States that are offered. */
  readonly offered: number;
  /** States and moments that were restored and proven. */
  readonly proven: number;
  /** Wishes that were refused as they should. */
  readonly refused: number;
  /** States that were offered no longer when they were asked for. */
  readonly vanished: number;
}

interface Proven {
  readonly txid: bigint;
  readonly seq: number;
}

interface RestoredState {
  readonly txid: bigint;
  readonly timestampMs: number;
}

type Wish = Exclude<RestoreWish, { kind: 'newest' }>;

/** Throws if anything offered is not what it should be. */
export async function proveOffer(options: OfferOptions): Promise<OfferProof> {
  return new Offer(options).prove();
}

class Offer {
  readonly #options: OfferOptions;
  readonly #output: string;
  /** What the last restore saw when it looked last. */
  #seen: readonly LtxFileInfo[] = [];
  #proven = 0;
  #refused = 0;
  #vanished = 0;

  constructor(options: OfferOptions) {
    this.#options = options;
    this.#output = join(options.folder, 'offered.db');
  }

  async prove(): Promise<OfferProof> {
    const states = await this.#states();
    const found: Proven[] = [];
    for (const state of this.#sample(states)) {
      const proven = await this.#proveState(state);
      if (proven !== undefined) found.push(proven);
      await this.#proveMoment(this.#momentFrom(states, state));
    }
    found.sort((a, b) => (a.txid < b.txid ? -1 : 1));
    for (let i = 1; i < found.length; i++) {
      const [before, after] = [found[i - 1], found[i]];
      assert.ok(
        before.seq <= after.seq,
        `TXID ${after.txid} stands at commit ${after.seq}, before ${before.seq}`,
      );
    }
    await this.#expectRefusals(states);
    return {
      offered: states.length,
      proven: this.#proven,
      refused: this.#refused,
      vanished: this.#vanished,
    };
  }

  async #states(): Promise<ReachableState[]> {
    return reachableStates(await this.#options.replica.list());
  }

  #sample(states: readonly ReachableState[]): ReachableState[] {
    const { limit, random } = this.#options;
    const inner = states
      .slice(1, -1)
      .filter(() => states.length <= limit || random.below(states.length) < limit);
    return [...new Set([states[0], ...inner, states[states.length - 1]])];
  }

  /** A moment between a state and the next one. */
  #momentFrom(states: readonly ReachableState[], state: ReachableState): number {
    const next = states[states.indexOf(state) + 1];
    const span = next === undefined ? 1 : Math.max(1, next.timestampMs - state.timestampMs);
    return state.timestampMs + this.#options.random.below(span);
  }

  async #proveState(state: ReachableState): Promise<Proven | undefined> {
    const { txid } = state;
    const restored = await this.#restore({ kind: 'txid', txid });
    if (restored instanceof JetliteError) {
      this.#vanished++;
      return this.#judgeRefusal({ kind: 'txid', txid }, restored);
    }
    assert.deepEqual([restored.txid, restored.timestampMs], [txid, state.timestampMs]);
    return { txid, seq: await this.#proveOutput(nameOf({ kind: 'txid', txid }), state.timestampMs) };
  }

  async #proveMoment(timestampMs: number): Promise<void> {
    const wish = { kind: 'timestamp', timestampMs } as const;
    const restored = await this.#restore(wish);
    if (restored instanceof JetliteError) {
      this.#vanished++;
      return this.#judgeRefusal(wish, restored);
    }
    await this.#proveOutput(nameOf(wish), timestampMs);
    assert.equal(restored.txid, lastAt(reachableStates(this.#seen), timestampMs), nameOf(wish));
  }

  /** Throws if what was refused was to be had from the files that the restore saw last. */
  #judgeRefusal(wish: Wish, error: JetliteError): undefined {
    const states = reachableStates(this.#seen);
    const why = `${nameOf(wish)} is offered and refused: ${error.message}`;
    if (wish.kind === 'txid') {
      assert.ok(!states.some(({ txid }) => txid === wish.txid), why);
      return;
    }
    const right = lastAt(states, wish.timestampMs);
    if (right !== undefined) assert.ok(this.#options.lossy && this.#showsHole(wish.timestampMs, right), why);
  }

  /** Whether a file of that time or before holds something later than the state `right`, and nothing leads to it. */
  #showsHole(timestampMs: number, right: bigint): boolean {
    const reached = new Set(reachableStates(this.#seen).map(({ txid }) => txid));
    return this.#seen.some(
      (file) => file.timestampMs <= timestampMs && file.maxTxid > right && !reached.has(file.maxTxid),
    );
  }

  /** The error if it was refused, which only a replica at work may do. */
  async #restore(wish: Wish): Promise<RestoredState | JetliteError> {
    try {
      return await this.#restoreAnyway(wish);
    } catch (error) {
      if (!this.#options.moving || !isNotFound(error)) throw error;
      return error;
    }
  }

  async #restoreAnyway(wish: Wish): Promise<RestoredState> {
    const replica = replicaWith(this.#options.replica, {
      list: async () => {
        this.#seen = await this.#options.replica.list();
        return [...this.#seen];
      },
    });
    const restored = await restore({ replica, output: this.#output, force: true, ...wish });
    assert.equal(restored.kind, 'restored');
    return restored as RestoredState & typeof restored;
  }

  /** The file that was restored is a committed state, and none of a later time. Answers its commit. */
  async #proveOutput(where: string, timestampMs: number): Promise<number> {
    const { checker } = this.#options;
    const { seq, digest } = await checker.prove(this.#output).catch((error: Error) => {
      throw new Error(`${where}: ${error.message}`);
    });
    const ledger = await ledgerWith(this.#options.ledger, seq);
    assert.equal(digest, ledger.digestOf(seq), `${where}, which stands at commit ${seq}`);
    // A commit begins after the one before it was acknowledged.
    const before = ledger.acknowledgedMs(seq - 1);
    if (before !== undefined) {
      assert.ok(
        before <= timestampMs + 1,
        `${where} stands at commit ${seq}, begun ${before - timestampMs} ms later`,
      );
    }
    this.#proven++;
    return seq;
  }

  async #expectRefusals(states: readonly ReachableState[]): Promise<void> {
    const { random, moving } = this.#options;
    const offered = new Set(states.map(({ txid }) => txid));
    const newest = states[states.length - 1].txid;
    const missing: bigint[] = [];
    for (let txid = 1n; txid < newest; txid++) if (!offered.has(txid)) missing.push(txid);
    const wishes: Wish[] = [
      { kind: 'timestamp', timestampMs: states[0].timestampMs - 60_000 },
      { kind: 'txid', txid: newest + 1_000_000n },
    ];
    for (let i = 0; i < 3 && missing.length > 0; i++) {
      wishes.push({ kind: 'txid', txid: random.pick(missing) });
    }
    for (const wish of wishes) {
      const restored = await this.#restoreAnyway(wish).catch((error: unknown) => error);
      if (moving && wish.kind === 'txid' && !(restored instanceof Error)) {
        // A merge or a snapshot that ends there has come since, or what was lost was put again.
        const now = reachableStates(this.#seen).find(({ txid }) => txid === wish.txid);
        assert.ok(now !== undefined, `${nameOf(wish)} is not offered and restored`);
        await this.#proveOutput(nameOf(wish), now.timestampMs);
        continue;
      }
      assert.ok(isNotFound(restored), `${nameOf(wish)}: ${restored}`);
      this.#judgeRefusal(wish, restored);
      assert.match(restored.message, /the nearest |the oldest state is /);
      assert.match(restored.hint ?? '', /can be restored/);
      this.#refused++;
    }
  }
}

function nameOf(wish: Wish): string {
  if (wish.kind === 'txid') return `TXID ${formatTxid(wish.txid)}`;
  return `the moment ${new Date(wish.timestampMs).toISOString()}`;
}

function lastAt(states: readonly ReachableState[], timestampMs: number): bigint | undefined {
  return states.filter((state) => state.timestampMs <= timestampMs).at(-1)?.txid;
}

function isNotFound(error: unknown): error is JetliteError {
  return error instanceof JetliteError && error.code === 'NOT_FOUND';
}
