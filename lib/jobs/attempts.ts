/**
 * Tries at a replica that may be out of reach: again and again, until one succeeds or the job is told to stop. Then each
 * thing under way gets one last try, and some time for it.
 */

import { setTimeout as delay } from 'node:timers/promises';
import { type ErrorCode, JetliteError } from '../errors.js';

/** How long what is under way may still take after the signal to stop. */
const STOP_GRACE_MS = 8000;
const RETRY_FIRST_MS = 250;
const RETRY_LAST_MS = 5000;

export interface AttemptsOptions {
  /** Firing it is the signal to stop. */
  readonly signal?: AbortSignal | undefined;
  /** Every try is the last one. */
  readonly once?: boolean | undefined;
  /** A try failed, and there will be another. */
  readonly onRetry: (error: JetliteError) => void;
}

export class Attempts {
  readonly #options: AttemptsOptions;
  readonly #grace = new AbortController();
  #graceTimer: NodeJS.Timeout | undefined;
  readonly #giveGrace = (): void => {
    this.#graceTimer = setTimeout(() => this.#grace.abort(), STOP_GRACE_MS);
  };

  constructor(options: AttemptsOptions) {
    this.#options = options;
    if (options.signal?.aborted) this.#giveGrace();
    options.signal?.addEventListener('abort', this.#giveGrace, { once: true });
  }

  /** Fires some time after the signal to stop: what hangs then is given up. */
  get interrupt(): AbortSignal {
    return this.#grace.signal;
  }

  /** Tries again as long as the replica is out of reach; once told to stop, one last time. */
  async run<T>(attempt: () => Promise<T>): Promise<T> {
    const { signal, once, onRetry } = this.#options;
    for (let wait = RETRY_FIRST_MS; ; wait = Math.min(wait * 2, RETRY_LAST_MS)) {
      const last = signal?.aborted === true || once === true;
      try {
        return await attempt();
      } catch (error) {
        if (last || !hasCode(error, 'REPLICA')) throw error;
        onRetry(error as JetliteError);
        await pause(wait, signal);
      }
    }
  }

  close(): void {
    this.#options.signal?.removeEventListener('abort', this.#giveGrace);
    clearTimeout(this.#graceTimer);
  }
}

export function hasCode(error: unknown, ...codes: ErrorCode[]): boolean {
  return error instanceof JetliteError && codes.includes(error.code);
}

/** Waits that long, or until the signal fires. */
export async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  await delay(ms, undefined, signal === undefined ? {} : { signal }).catch(() => undefined);
}
