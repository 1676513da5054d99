/**
 * How much of an object may be under way to the server at once. Shared by the puts of one replica: what one of them
 * learns of the server's limit on waiting messages, the next ones keep to.
 */

const MAX_WINDOW = 8;
const MAX_CHUNK_SIZE = 512 * 1024;
const MIN_CHUNK_SIZE = 16 * 1024;
/** Room for a message's headers within the server's limit on a message. */
const HEADROOM = 1024;
const GROW_AFTER_CHUNKS = 64;
const FIRST_WAIT_MS = 20;
const LONGEST_WAIT_MS = 1000;

export class Pace {
  #window = MAX_WINDOW;
  #chunkSize = MAX_CHUNK_SIZE;
  #accepted = 0;
  #refusals = 0;

  /** Chunks under way at once. */
  get window(): number {
    return this.#window;
  }

  /** Bytes of a chunk for a server and a stream with these limits on a message; -1 stands for none. */
  chunkSize(...limits: number[]): number {
    let size = this.#chunkSize;
    for (const limit of limits) if (limit > 0) size = Math.min(size, limit - HEADROOM);
    return Math.max(1, size > HEADROOM ? size - (size % HEADROOM) : size);
  }

  accepted(): void {
    this.#refusals = 0;
    this.#accepted++;
    if (this.#accepted % GROW_AFTER_CHUNKS === 0 && this.#window < MAX_WINDOW) this.#window++;
  }

  /** The server had too much waiting. The answer: how long to wait, in milliseconds. */
  refused(): number {
    this.#accepted = 0;
    this.#refusals++;
    if (this.#window === 1 && this.#refusals > 8) {
      this.#chunkSize = Math.max(MIN_CHUNK_SIZE, this.#chunkSize / 2);
    }
    this.#window = Math.max(1, this.#window >> 1);
    const wait = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** Math.min(this.#refusals - 1, 10));
    return wait * (0.5 + Math.random() / 2);
  }
}
