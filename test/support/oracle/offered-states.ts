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
import type { Replica } from '../../../lib/replica/replica.js';
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
  /** Whether a replicator is at work in the replica: what is offered may be gone when it is asked for. */
  readonly moving: boolean;
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

/** Throws if anything offered is not what it should be. */
export async function proveOffer(options: OfferOptions): Promise<OfferProof> {
  return new Offer(options).prove();
}

class Offer {
  readonly #options: OfferOptions;
  readonly #output: string;
  /** What was offered when the last restore looked last. */
  #seen: readonly ReachableState[] = [];
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
    const where = `TXID ${formatTxid(state.txid)}`;
    const restored = await this.#restore({ kind: 'txid', txid: state.txid });
    if (restored === undefined) {
      assert.ok(!this.#seen.some(({ txid }) => txid === state.txid), `${where} is offered and refused`);
      return undefined;
    }
    assert.deepEqual([restored.txid, restored.timestampMs], [state.txid, state.timestampMs]);
    return { txid: state.txid, seq: await this.#proveOutput(where, state.timestampMs) };
  }

  async #proveMoment(timestampMs: number): Promise<void> {
    const where = `the moment ${new Date(timestampMs).toISOString()}`;
    const restored = await this.#restore({ kind: 'timestamp', timestampMs });
    const right = lastAt(this.#seen, timestampMs);
    if (restored === undefined) {
      assert.equal(right, undefined, `${where} is offered and refused`);
      return;
    }
    await this.#proveOutput(where, timestampMs);
    assert.equal(restored.txid, right, where);
  }

  /** Undefined if it was refused because files have gone. */
  async #restore(
    wish: Exclude<RestoreWish, { kind: 'newest' }>,
  ): Promise<{ txid: bigint; timestampMs: number } | undefined> {
    const { moving } = this.#options;
    const replica = replicaWith(this.#options.replica, {
      list: async () => {
        const files = await this.#options.replica.list();
        this.#seen = reachableStates(files);
        return files;
      },
    });
    try {
      const restored = await restore({ replica, output: this.#output, force: true, ...wish });
      assert.equal(restored.kind, 'restored');
      return restored as { txid: bigint; timestampMs: number } & typeof restored;
    } catch (error) {
      if (!moving || !isNotFound(error)) throw error;
      this.#vanished++;
      return undefined;
    }
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
    const { replica, random } = this.#options;
    const offered = new Set(states.map(({ txid }) => txid));
    const newest = states[states.length - 1].txid;
    const missing: bigint[] = [];
    for (let txid = 1n; txid < newest; txid++) if (!offered.has(txid)) missing.push(txid);
    const wishes: { txid?: bigint; timestampMs?: number }[] = [
      { timestampMs: states[0].timestampMs - 60_000 },
      { txid: newest + 1_000_000n },
    ];
    for (let i = 0; i < 3 && missing.length > 0; i++) wishes.push({ txid: random.pick(missing) });
    for (const wish of wishes) {
      await assert.rejects(
        restore({ replica, output: join(this.#options.folder, 'never.db'), ...wish }),
        (error: unknown) => {
          assert.ok(isNotFound(error), String(error));
          assert.match(error.message, /the nearest |the oldest state is /);
          assert.match(error.hint ?? '', /can be restored/);
          return true;
        },
      );
      this.#refused++;
    }
  }
}

function lastAt(states: readonly ReachableState[], timestampMs: number): bigint | undefined {
  return states.filter((state) => state.timestampMs <= timestampMs).at(-1)?.txid;
}

function isNotFound(error: unknown): error is JetliteError {
  return error instanceof JetliteError && error.code === 'NOT_FOUND';
}
