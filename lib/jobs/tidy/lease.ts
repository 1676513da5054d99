/**
 * The right to merge and remove files of a replica: a companion of its files that says who has it, so that of several
 * replicators and cron jobs one at a time tidies up.
 *
 * 1. It is created where nothing stands, or put in the place of exactly the version that was found expired: of several
 *    takers one wins.
 * 2. While it is held its version never changes: whoever writes or removes under it names that version, and the replica
 *    refuses once another stands there. So a holder that slept and wakes can do no harm, whatever it believes.
 * 3. A sign of life, a companion of its own, is rewritten by the holder three times in the life of a lease. A lease has
 *    expired when both it and its holder's last sign of life are older than that, by the replica's own clock: the clocks of
 *    the machines that take turns need not agree.
 * 4. A time that lies in the future by more than a life means that the clock was set back; it does not count.
 */

import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { ConflictError, LeaseLostError } from '../../errors.js';
import { printable } from '../../printable.js';
import { type Extra, LEASE_NAME, type Replica } from '../../replica/replica.js';

const SIGN_NAME = 'lease-sign';
const DEFAULT_LIFE_MS = 30_000;
/** What a lease says of its own life counts within these bounds. */
const SHORTEST_LIFE_MS = 100;
const LONGEST_LIFE_MS = 600_000;

export interface Lease {
  /** For `LtxFileTarget.lease` and `Replica.remove`. */
  readonly version: string;
  /** Fires when the lease is found lost, and when the caller's own signal does. */
  readonly signal: AbortSignal;
}

export interface LeaseOptions {
  /** How long a lease outlives its holder's last sign of life. Default 30 s. */
  readonly lifeMs?: number;
  readonly signal?: AbortSignal | undefined;
}

/** What became of the wish to work under the lease. */
export type Leased<T> =
  | { readonly kind: 'done'; readonly value: T }
  /** Somebody else has it; `holder` says who, for messages. Nothing was done. */
  | { readonly kind: 'busy'; readonly holder: string };

/**
 * Takes the lease, does the work, and gives it back, also if the work fails. The work must end when its lease's signal
 * fires. Throws what the work throws; LeaseLostError if that ended because the lease was lost; REPLICA.
 */
export async function holdLease<T>(
  replica: Replica,
  work: (lease: Lease) => Promise<T>,
  options: LeaseOptions = {},
): Promise<Leased<T>> {
  const { lifeMs = DEFAULT_LIFE_MS, signal } = options;
  const nonce = randomBytes(12).toString('hex');
  const taken = await takeLease(replica, { holder: `${hostname()} (process ${process.pid})`, nonce, lifeMs });
  if (taken.kind === 'busy') return taken;
  const { version } = taken;
  const lost = new AbortController();
  const signs = new SignsOfLife(replica, version, nonce, lifeMs, (error) => lost.abort(error));
  const either = signal === undefined ? lost.signal : AbortSignal.any([signal, lost.signal]);
  try {
    return { kind: 'done', value: await work({ version, signal: either }) };
  } catch (error) {
    throw lost.signal.aborted && signal?.aborted !== true ? lost.signal.reason : error;
  } finally {
    await signs.stop();
    // Where it is lost already, or cannot be given back, it expires.
    await replica.removeExtra(LEASE_NAME, version).catch(() => {});
  }
}

interface LeaseText {
  readonly holder: string;
  readonly nonce: string;
  readonly lifeMs: number;
}

async function takeLease(
  replica: Replica,
  text: LeaseText,
): Promise<{ kind: 'taken'; version: string } | { kind: 'busy'; holder: string }> {
  const standing = await replica.readExtra(LEASE_NAME);
  let replaces = 'nothing';
  if (standing !== undefined) {
    const { holder, nonce, lifeMs } = readText(standing);
    if (!(await isExpired(replica, standing, nonce, lifeMs))) return { kind: 'busy', holder };
    replaces = standing.version;
  }
  try {
    return { kind: 'taken', version: await replica.writeExtra(LEASE_NAME, encodeText(text), replaces) };
  } catch (error) {
    if (error instanceof ConflictError) return { kind: 'busy', holder: 'another program, since just now' };
    throw error;
  }
}

/** Invariants 3 and 4. */
async function isExpired(replica: Replica, lease: Extra, nonce: string, lifeMs: number): Promise<boolean> {
  const sign = await replica.readExtra(SIGN_NAME);
  const now = await replica.clock();
  const isAlive = (writtenMs: number): boolean => Math.abs(now - writtenMs) <= lifeMs;
  if (isAlive(lease.writtenMs)) return false;
  return sign === undefined || Buffer.from(sign.bytes).toString() !== nonce || !isAlive(sign.writtenMs);
}

function encodeText({ holder, nonce, lifeMs }: LeaseText): Uint8Array {
  return Buffer.from(`${JSON.stringify({ holder, nonce, life_ms: lifeMs })}\n`);
}

/** A lease that cannot be read is nobody's, and expires like any other. */
function readText(extra: Extra): LeaseText {
  let found: { holder?: unknown; nonce?: unknown; life_ms?: unknown } = {};
  try {
    found = JSON.parse(Buffer.from(extra.bytes).toString()) ?? {};
  } catch {
    // As if it were empty.
  }
  const { holder, nonce, life_ms } = found;
  const lifeMs = typeof life_ms === 'number' ? life_ms : DEFAULT_LIFE_MS;
  return {
    holder: typeof holder === 'string' ? printable(holder) : 'an unknown program',
    nonce: typeof nonce === 'string' ? nonce : '',
    lifeMs: Math.min(Math.max(lifeMs, SHORTEST_LIFE_MS), LONGEST_LIFE_MS),
  };
}

/** Rewrites the sign of life, and notices when the lease is gone. */
class SignsOfLife {
  readonly #replica: Replica;
  readonly #version: string;
  readonly #nonce: string;
  readonly #onLost: (error: LeaseLostError) => void;
  readonly #timer: NodeJS.Timeout;
  #giving: Promise<void> | undefined;

  constructor(
    replica: Replica,
    version: string,
    nonce: string,
    lifeMs: number,
    onLost: (error: LeaseLostError) => void,
  ) {
    this.#replica = replica;
    this.#version = version;
    this.#nonce = nonce;
    this.#onLost = onLost;
    this.#timer = setInterval(() => {
      this.#giving ??= this.#give().finally(() => {
        this.#giving = undefined;
      });
    }, lifeMs / 3);
    this.#timer.unref();
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#giving;
  }

  async #give(): Promise<void> {
    try {
      const lease = await this.#replica.readExtra(LEASE_NAME);
      if (lease?.version !== this.#version) {
        const holder = lease === undefined ? 'nobody' : readText(lease).holder;
        this.#onLost(
          new LeaseLostError(`the lease of ${this.#replica.url} was lost: ${holder} has it by now`),
        );
        return;
      }
      await this.#replica.writeExtra(SIGN_NAME, Buffer.from(this.#nonce));
    } catch {
      // Out of reach for now. If it stays so for too long another takes the lease, and what is written is refused.
    }
  }
}
