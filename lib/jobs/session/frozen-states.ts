/**
 * States of the source that work beside the capture loop wishes to read. Capture can freeze one only between its looks,
 * when everything it gathered is sealed: then the loop serves who waits.
 */

import type { Capture } from '../../capture/capture.js';
import type { FrozenImage } from '../../capture/frozen-image.js';

/** The state of the newest sealed TXID, at the moment when it was frozen. Close the image. */
export interface FrozenState {
  readonly txid: bigint;
  readonly image: FrozenImage;
}

export class FrozenStates {
  readonly #capture: Capture;
  readonly #sealedTxid: () => bigint;
  readonly #waiting = new Set<(state: FrozenState | undefined) => void>();
  #ended = false;

  /** @param sealedTxid the TXID whose state the page sums describe */
  constructor(capture: Capture, sealedTxid: () => bigint) {
    this.#capture = capture;
    this.#sealedTxid = sealedTxid;
  }

  /** The next state that can be frozen; undefined if the signal fires first, or the job ends. */
  wish(signal: AbortSignal): Promise<FrozenState | undefined> {
    if (this.#ended || signal.aborted) return Promise.resolve(undefined);
    return new Promise((resolve) => {
      const answer = (state: FrozenState | undefined): void => {
        this.#waiting.delete(answer);
        signal.removeEventListener('abort', giveUp);
        resolve(state);
      };
      const giveUp = (): void => answer(undefined);
      signal.addEventListener('abort', giveUp);
      this.#waiting.add(answer);
      this.#capture.wake();
    });
  }

  /** Whether a batch should be sealed as soon as possible. */
  get isWished(): boolean {
    return this.#waiting.size > 0;
  }

  /** Call between two looks of capture. */
  serve(): void {
    const [answer] = this.#waiting;
    if (answer === undefined) return;
    const txid = this.#sealedTxid();
    const image = txid === 0n ? undefined : this.#capture.freeze();
    if (image !== undefined) answer({ txid, image });
  }

  /** Nobody is served any more. */
  end(): void {
    this.#ended = true;
    for (const answer of [...this.#waiting]) answer(undefined);
  }
}
