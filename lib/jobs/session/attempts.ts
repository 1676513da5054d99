/**
 * Tries at a replica that may be out of reach: again and again, until one succeeds or the job is told to stop. Then each
 * thing under way gets one last try, and some time for it.
 */

import { performance } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import { type ErrorCode, GivenUpError, JetliteError } from '../../errors.js';
import { LONGEST_TIMER_MS } from '../../longest-timer.js';

/** Less than service managers and container engines wait before they kill. */
const STOP_TIMEOUT_MS = 8000;
/** Of that time the last part is for what is given up to end by itself, for all of it together. */
const GIVE_UP_MS = 500;
/** And for what begins to end later than that: no more than to close a file. */
const LATE_MS = 50;
const RETRY_FIRST_MS = 250;
const RETRY_LAST_MS = 5000;
/** Trouble that goes on is told again this seldom, another trouble than before somewhat sooner. */
const TELL_AGAIN_MS = 300_000;
const TELL_OTHER_MS = 10_000;

export interface AttemptsOptions {
  /** Firing it is the signal to stop. */
  readonly signal?: AbortSignal | undefined;
  /** How long what is under way may still take after the signal to stop, ms; default 8,000. */
  readonly stopTimeoutMs?: number | undefined;
  /** Every try is the last one. */
  readonly once?: boolean | undefined;
  /** A try failed, and there will be another. Told at first, then seldom. */
  readonly onRetry: (error: JetliteError) => void;
  /** A try succeeded after `onRetry` was told; milliseconds since the first one failed. */
  readonly onBack?: (awayMs: number) => void;
}

export class Attempts {
  readonly #options: AttemptsOptions;
  readonly #grace = new AbortController();
  #graceTimer: NodeJS.Timeout | undefined;
  /** When nothing is waited for any more, by the monotonic clock; known once `interrupt` has fired. */
  #overAt = Number.POSITIVE_INFINITY;
  #trouble: { readonly sinceMs: number; toldMs: number; told: string } | undefined;
  readonly #giveGrace = (): void => {
    const ms = Math.min(this.#options.stopTimeoutMs ?? STOP_TIMEOUT_MS, LONGEST_TIMER_MS);
    const giveUpMs = Math.min(GIVE_UP_MS, ms / 2);
    this.#graceTimer = setTimeout(() => {
      this.#overAt = performance.now() + giveUpMs;
      this.#grace.abort();
    }, ms - giveUpMs);
  };

  constructor(options: AttemptsOptions) {
    this.#options = options;
    if (options.signal?.aborted) this.#giveGrace();
    options.signal?.addEventListener('abort', this.#giveGrace, { once: true });
  }

  /** Fires when the time to stop is nearly over: what hangs then is given up. */
  get interrupt(): AbortSignal {
    return this.#grace.signal;
  }

  /** The last try failed. */
  get isTroubled(): boolean {
    return this.#trouble !== undefined;
  }

  /** Tries again after errors that may pass; once told to stop, one last time. */
  async run<T>(attempt: () => Promise<T>, mayPass: (error: unknown) => boolean = isReplicaError): Promise<T> {
    const { signal, once } = this.#options;
    for (let wait = RETRY_FIRST_MS; ; wait = Math.min(wait * 2, RETRY_LAST_MS)) {
      const last = signal?.aborted === true || once === true;
      try {
        const result = await this.unlessHung(attempt());
        this.#back();
        return result;
      } catch (error) {
        if (last || !mayPass(error)) throw error;
        this.#tell(error as JetliteError);
        await pause(wait, signal);
      }
    }
  }

  /** What `work` comes to; ABORTED if it goes on after the time to stop is over. Then nobody hears of its end. */
  async unlessHung<T>(work: Promise<T>): Promise<T> {
    const { signal } = this.#grace;
    let timer: NodeJS.Timeout | undefined;
    let begin = (): void => {};
    const hung = new Promise<never>((_, reject) => {
      const giveUp = (): void => reject(new JetliteError('ABORTED', 'the replica does not answer'));
      begin = () => {
        timer = setTimeout(giveUp, Math.max(LATE_MS, this.#overAt - performance.now()));
      };
    });
    if (signal.aborted) begin();
    else signal.addEventListener('abort', begin, { once: true });
    work.catch(() => {});
    try {
      return await Promise.race([work, hung]);
    } finally {
      signal.removeEventListener('abort', begin);
      clearTimeout(timer);
    }
  }

  close(): void {
    this.#options.signal?.removeEventListener('abort', this.#giveGrace);
    clearTimeout(this.#graceTimer);
  }

  #tell(error: JetliteError): void {
    const now = performance.now();
    const trouble = this.#trouble;
    if (trouble !== undefined) {
      const patience = trouble.told === error.message ? TELL_AGAIN_MS : TELL_OTHER_MS;
      if (now - trouble.toldMs < patience) return;
    }
    this.#trouble = { sinceMs: trouble?.sinceMs ?? now, toldMs: now, told: error.message };
    this.#options.onRetry(error);
  }

  #back(): void {
    if (this.#trouble === undefined) return;
    const awayMs = performance.now() - this.#trouble.sinceMs;
    this.#trouble = undefined;
    this.#options.onBack?.(awayMs);
  }
}

export function hasCode(error: unknown, ...codes: ErrorCode[]): boolean {
  return error instanceof JetliteError && codes.includes(error.code);
}

/** Nobody answered: waiting may be enough. */
export function isAway(error: unknown): boolean {
  return error instanceof JetliteError && error.away;
}

/** The replica cannot be reached or refuses: somebody may put that right while we wait. */
function isReplicaError(error: unknown): boolean {
  return hasCode(error, 'REPLICA') && !(error instanceof GivenUpError);
}

/** Waits that long, or until the signal fires. */
export async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  await delay(Math.min(ms, LONGEST_TIMER_MS), undefined, signal === undefined ? {} : { signal }).catch(
    () => undefined,
  );
}
