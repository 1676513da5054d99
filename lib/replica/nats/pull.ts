/**
 * The chunks of an object, a few at a time and only when they are asked for.
 *
 * A pushing consumer runs ahead of its reader by up to 32 MB. Where a dozen objects are read side by side, as in a merge,
 * that fills the memory and makes the server drop the whole connection as too slow, with all that others do on it. Here
 * the server sends what was asked for and no more: a few chunks, counting those that have arrived and were not taken.
 *
 * Of a bucket with replicas the server that sends may be one whose copy lags behind. That it has no more is believed only
 * if the stream's leader can read none either.
 */

import { AckPolicy, createInbox, DeliverPolicy, type Msg, nanos, nuid, type Subscription } from 'nats';
import { FormatError, JetliteError } from '../../errors.js';
import type { Bucket } from './bucket.js';
import { deliveryOf } from './consumer.js';
import { chunkSubject, hasMessageFrom, type StoredObject } from './objects.js';

/** Chunks that have arrived or are under way. */
const AHEAD = 2;
const FORGET_AFTER_MS = 600_000;
const NO_MESSAGES = 404;

/**
 * Yields the chunks in order. Throws FORMAT if one is missing; REPLICA if the connection or the consumer is lost, or not all
 * chunks are sent: nothing is tried again.
 */
export async function* pullChunks(
  bucket: Bucket,
  object: Pick<StoredObject, 'nuid' | 'chunks' | 'name'>,
): AsyncGenerator<Uint8Array> {
  const pulled = new PulledChunks(bucket, object);
  try {
    await pulled.open();
    for (let chunk = 0; chunk < object.chunks; chunk++) yield await pulled.next(object.chunks - chunk);
  } finally {
    pulled.close();
  }
}

class PulledChunks {
  readonly #bucket: Bucket;
  readonly #object: Pick<StoredObject, 'nuid' | 'chunks' | 'name'>;
  readonly #consumer = nuid.next();
  readonly #inbox = createInbox();
  readonly #arrived: Uint8Array[] = [];
  #subscription: Subscription | undefined;
  #asked = 0;
  /** Chunks still to come have at least this sequence. */
  #next = 1;
  #failure: unknown;
  #wake: () => void = () => {};
  #forgetLost: () => void = () => {};

  constructor(bucket: Bucket, object: Pick<StoredObject, 'nuid' | 'chunks' | 'name'>) {
    this.#bucket = bucket;
    this.#object = object;
  }

  async open(): Promise<void> {
    const { link, manager, stream } = this.#bucket;
    this.#forgetLost = link.onLost((error) => this.#fail(error));
    this.#subscription = link.connection.subscribe(this.#inbox, {
      callback: (error, message) => (error ? this.#fail(error) : this.#take(message)),
    });
    await link.orLost(
      manager.consumers.add(stream, {
        name: this.#consumer,
        filter_subject: chunkSubject(this.#bucket, this.#object.nuid),
        ack_policy: AckPolicy.None,
        deliver_policy: DeliverPolicy.All,
        inactive_threshold: nanos(FORGET_AFTER_MS),
        max_deliver: 1,
        mem_storage: true,
        num_replicas: 1,
      }),
    );
  }

  /** The next of `left` chunks that are still to come. */
  async next(left: number): Promise<Uint8Array> {
    for (;;) {
      this.#ask(Math.min(AHEAD, left) - this.#arrived.length - this.#asked);
      const chunk = this.#arrived.shift();
      if (chunk !== undefined) return chunk;
      if (this.#failure !== undefined) throw await this.#why(this.#failure);
      await this.#arrival();
    }
  }

  close(): void {
    this.#forgetLost();
    this.#subscription?.unsubscribe();
    // The server would forget it by itself; nobody waits for this.
    this.#bucket.manager.consumers.delete(this.#bucket.stream, this.#consumer).catch(() => {});
  }

  #ask(count: number): void {
    if (count <= 0) return;
    this.#asked += count;
    const { link, stream } = this.#bucket;
    const request = JSON.stringify({ batch: count, no_wait: true });
    link.connection.publish(`$JS.API.CONSUMER.MSG.NEXT.${stream}.${this.#consumer}`, request, {
      reply: this.#inbox,
    });
  }

  #take(message: Msg): void {
    if (message.reply?.startsWith('$JS.ACK.')) {
      this.#asked--;
      this.#next = deliveryOf(message, message.reply).sequence + 1;
      this.#arrived.push(message.data);
      this.#wake();
      return;
    }
    const code = message.headers?.code ?? 0;
    const where = `${this.#object.name} in bucket ${this.#bucket.name}`;
    const why = `${code} ${message.headers?.description ?? ''}`;
    this.#fail(
      code === NO_MESSAGES
        ? new FormatError(where, `expected ${this.#object.chunks} chunks, found fewer`)
        : new JetliteError('REPLICA', `cannot read ${where}: ${why}`),
    );
  }

  async #why(failure: unknown): Promise<unknown> {
    if (!(failure instanceof FormatError)) return failure;
    const subject = chunkSubject(this.#bucket, this.#object.nuid);
    if (!(await hasMessageFrom(this.#bucket, subject, this.#next))) return failure;
    const message = `the server does not send all chunks of ${this.#object.name} (bucket ${this.#bucket.name}, ${this.#bucket.link.url})`;
    const hint = 'Its copy of the bucket lags behind: try again.';
    return new JetliteError('REPLICA', message, { hint, away: true });
  }

  async #arrival(): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const { timeoutMs, url } = this.#bucket.link;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      timer = setTimeout(() => {
        const message = `no answer from the NATS server within ${timeoutMs / 1000} s (${url})`;
        this.#fail(new JetliteError('REPLICA', message, { away: true }));
      }, timeoutMs);
    });
    clearTimeout(timer);
  }

  #fail(why: unknown): void {
    this.#failure ??= why;
    this.#wake();
  }
}
