/** `follow` in the test's own process, with what it has said; ended with the test. */
import { type FollowEvent, type FollowOptions, type FollowResult, follow } from '../../lib/jobs/follow.js';

export class FollowRun {
  readonly events: FollowEvent[] = [];
  /** Resolves or rejects as the job does. */
  readonly ended: Promise<FollowResult>;
  readonly #stopping = new AbortController();
  #look = () => {};

  constructor(t: { after(done: () => Promise<void>): void }, options: FollowOptions) {
    this.ended = follow({
      ...options,
      signal: this.#stopping.signal,
      onEvent: (event) => {
        this.events.push(event);
        this.#look();
      },
    });
    this.ended.catch(() => {}); // For whoever waits for it.
    t.after(async () => {
      this.#stopping.abort();
      await this.ended.catch(() => {});
    });
  }

  /** The first event that is wanted, past ones included; rejects if the job ends without one. */
  async sees(wanted: (event: FollowEvent) => boolean): Promise<FollowEvent> {
    const over = this.ended.then(() => {
      throw new Error(`following ended: ${this.events.map(({ message }) => message).join('\n')}`);
    });
    over.catch(() => {});
    for (;;) {
      const found = this.events.find(wanted);
      if (found !== undefined) return found;
      const news = new Promise<void>((resolve) => {
        this.#look = resolve;
      });
      await Promise.race([news, over]);
    }
  }

  /** The copy stands at that TXID or a later one. */
  async reaches(txid: bigint): Promise<void> {
    await this.sees((event) => event.txid >= txid);
  }

  async stop(): Promise<FollowResult> {
    this.#stopping.abort();
    return this.ended;
  }
}
