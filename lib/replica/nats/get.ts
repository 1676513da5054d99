/**
 * Reading an object: its chunks in stream order, checked against its meta.
 *
 * A whole read checks the number of chunks, the size and the digest; where they differ, the meta is read again, for the
 * object may have been replaced or removed meanwhile. A range begins at the right chunk: chunks are stored before
 * their meta, most often directly, so a guess at the sequence is tried first; the server's count of what is pending
 * from there tells which chunk it is.
 *
 * A chunk whose bytes have changed in the server's store is counted but never delivered: the server passes over it. A
 * whole read finds one too few at the end; in a range the message ids of our own chunks tell which one is missing.
 */

import { createHash } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { FormatError, JetliteError } from '../../errors.js';
import { LONGEST_TIMER_MS } from '../../longest-timer.js';
import type { ReadOptions, ReadRange } from '../replica.js';
import type { Bucket } from './bucket.js';
import {
  type ConsumerEvents,
  type Delivery,
  type OrderedConsumer,
  openConsumer,
  SILENCE_MS,
  type StartAt,
} from './consumer.js';
import { Api, apiCode, ConnectionLost, isFinal, requestError } from './errors.js';
import {
  chunkSubject,
  formatDigest,
  getMessage,
  hasMessageFrom,
  lastMeta,
  type StoredObject,
} from './objects.js';
import { pullChunks } from './pull.js';

/** How often a loss is asked about, and how long after one another, ms. */
const TRIES = 4;
const TRY_AGAIN_MS = 250;

export type ReadableObject = Pick<
  StoredObject,
  'name' | 'nuid' | 'size' | 'chunks' | 'chunkSize' | 'digest' | 'sequence'
>;

/** An object of one chunk, up to this size, is asked for as a message: for that a server need not make a consumer. */
const ASKED_BYTES = 64 * 1024;
/** So often a server may have nothing to send although the leader has more, before another consumer is made. */
const IDLE_PATIENCE = 3;

/**
 * The bytes of an object, or a range of them. Throws NOT_FOUND if this version is there no more, FORMAT if it is
 * damaged (for a whole read at the end, after the bytes), REPLICA if the server cannot be asked.
 */
export async function* readObject(
  bucket: Bucket,
  object: ReadableObject,
  range?: ReadRange,
  options: ReadOptions = {},
): AsyncGenerator<Uint8Array> {
  try {
    if (range === undefined) yield* readWhole(bucket, object, options.onDemand === true);
    else yield* readRange(bucket, object, range);
  } catch (error) {
    if (!(error instanceof FormatError)) {
      throw requestError(error, `read ${object.name}`, bucket.name, bucket.link.url);
    }
    const last = await lastMeta(bucket, object.name);
    if (last !== undefined && !last.deleted && last.nuid === object.nuid) throw error;
    const what = last === undefined || last.deleted ? 'removed' : 'replaced';
    throw new JetliteError(
      'NOT_FOUND',
      `${object.name} in bucket ${bucket.name} was ${what} after it was listed`,
    );
  }
}

async function* readWhole(
  bucket: Bucket,
  object: ReadableObject,
  onDemand: boolean,
): AsyncGenerator<Uint8Array> {
  const hash = createHash('sha256');
  let size = 0;
  for await (const bytes of wholeChunks(bucket, object, onDemand)) {
    hash.update(bytes);
    size += bytes.length;
    // Whoever gathers the bytes has counted on the size.
    if (size > object.size) throw damaged(bucket, object, `expected ${object.size} bytes, found more`);
    yield bytes;
  }
  if (size !== object.size) throw damaged(bucket, object, `expected ${object.size} bytes, found ${size}`);
  const digest = formatDigest(hash.digest());
  // Some writers leave the padding out.
  if (object.digest !== '' && digest.replace(/=+$/, '') !== object.digest.replace(/=+$/, '')) {
    throw damaged(bucket, object, `expected the digest ${object.digest}, found ${digest}`);
  }
}

async function* wholeChunks(
  bucket: Bucket,
  object: ReadableObject,
  onDemand: boolean,
): AsyncGenerator<Uint8Array> {
  const only = object.chunks === 1 && object.size <= ASKED_BYTES ? await askChunk(bucket, object) : undefined;
  if (only !== undefined) yield only;
  else yield* onDemand ? pullChunks(bucket, object) : pushedChunks(bucket, object);
}

/** The one chunk of an object; undefined where that is not what the server has: a consumer shows what it is. */
async function askChunk(bucket: Bucket, object: ReadableObject): Promise<Uint8Array | undefined> {
  try {
    const { data } = await getMessage(bucket, { last_by_subj: chunkSubject(bucket, object.nuid) });
    return data.length === object.size ? data : undefined;
  } catch (error) {
    if (apiCode(error) === Api.MESSAGE_NOT_FOUND) return undefined;
    throw error;
  }
}

async function* pushedChunks(bucket: Bucket, object: ReadableObject): AsyncGenerator<Uint8Array> {
  if (object.chunks === 0) return;
  const reader = await openReader(bucket, object, 0);
  try {
    for (let chunk = 0; chunk < object.chunks; chunk++) yield (await reader.next()).bytes;
  } finally {
    reader.close();
  }
}

async function* readRange(
  bucket: Bucket,
  object: ReadableObject,
  range: ReadRange,
): AsyncGenerator<Uint8Array> {
  const { size, chunks, chunkSize } = object;
  let position = Math.min(range.offset, size);
  const end = Math.min(position + range.length, size);
  if (position >= end) return;
  const regular = chunkSize !== undefined && Math.ceil(size / chunkSize) === chunks;
  const firstChunk = regular ? Math.floor(position / chunkSize) : 0;
  const reader = await openReader(bucket, object, firstChunk);
  try {
    let chunkStart = regular ? firstChunk * chunkSize : 0;
    for (let chunk = firstChunk; position < end; chunk++) {
      if (chunk === chunks) throw damaged(bucket, object, `expected ${size} bytes, found ${chunkStart}`);
      const { bytes, index } = await reader.next(true);
      if (index !== undefined && index !== chunk) {
        throw damaged(bucket, object, `the server cannot read chunk ${chunk + 1} of ${chunks}`);
      }
      if (regular && bytes.length !== Math.min(chunkSize, size - chunkStart)) {
        throw damaged(bucket, object, `chunk ${chunk + 1} has not the size that its meta gives`);
      }
      const chunkEnd = chunkStart + bytes.length;
      if (chunkEnd > position) {
        const part = bytes.subarray(position - chunkStart, Math.min(end, chunkEnd) - chunkStart);
        position += part.length;
        yield part;
      }
      chunkStart = chunkEnd;
    }
  } finally {
    reader.close();
  }
}

function damaged(bucket: Bucket, object: ReadableObject, what: string): FormatError {
  return new FormatError(`${object.name} in bucket ${bucket.name}`, what);
}

/**
 * Opens a reader whose next chunk is the one of that index. A leader that has just come to be may count fewer chunks than
 * it has: what it says is lost is asked for again before it is believed.
 */
async function openReader(bucket: Bucket, object: ReadableObject, index: number): Promise<ChunkReader> {
  for (let tries = 1; ; tries++) {
    try {
      return await openReaderOnce(bucket, object, index);
    } catch (error) {
      if (!(error instanceof FormatError) || tries === TRIES) throw error;
    }
    await delay(TRY_AGAIN_MS);
  }
}

async function openReaderOnce(bucket: Bucket, object: ReadableObject, index: number): Promise<ChunkReader> {
  const reader = new ChunkReader(bucket, object);
  try {
    if (index > 0) {
      // Right if the chunks stand directly before their meta, too late if other messages came between.
      const guess = object.sequence - object.chunks + index;
      const found = object.chunks - (await reader.open({ sequence: Math.max(1, guess) }));
      if (found > index || found < 0) {
        const first = await firstSequence(bucket, object);
        await reader.open({ sequence: first + index });
      }
    } else {
      await reader.open({ policy: 'all' });
    }
    let at = object.chunks - reader.pending;
    if (at < 0 || at > index) {
      throw damaged(
        bucket,
        object,
        `expected ${object.chunks} chunks, found ${index === 0 ? reader.pending : 'others'}`,
      );
    }
    for (; at < index; at++) await reader.next();
    return reader;
  } catch (error) {
    reader.close();
    throw error;
  }
}

/** Every chunk has at least the first one's sequence plus its index. */
async function firstSequence(bucket: Bucket, object: ReadableObject): Promise<number> {
  const query = { seq: 1, next_by_subj: chunkSubject(bucket, object.nuid) };
  return (await getMessage(bucket, query)).seq;
}

/** The chunks of a nuid, one after the other; goes on behind the last one where a consumer broke. */
class ChunkReader implements ConsumerEvents {
  readonly #bucket: Bucket;
  readonly #object: ReadableObject;
  #consumer: OrderedConsumer | undefined;
  /** Chunks that arrived, and between them answers the server waits for before it sends more. */
  #queue: (Delivery | (() => void))[] = [];
  #broken: Error | undefined;
  #wake: () => void = () => {};
  #next = 1;
  #isIdle = false;
  #idleTimes = 0;

  constructor(bucket: Bucket, object: ReadableObject) {
    this.#bucket = bucket;
    this.#object = object;
  }

  /** Chunks from where it was opened to the end. */
  get pending(): number {
    return this.#consumer?.pending ?? 0;
  }

  async open(start: StartAt): Promise<number> {
    this.close();
    this.#consumer = await openConsumer(this.#bucket, this.#subject, start, () => {
      this.#queue = [];
      this.#broken = undefined;
      return this;
    });
    return this.#consumer.pending;
  }

  /**
   * The next chunk and, if asked for and its writer said so, which one of the object it is, from 0. Throws REPLICA where the
   * server answers and yet sends none for longer than anything else is waited for.
   */
  async next(
    wantsIndex = false,
  ): Promise<{ readonly bytes: Uint8Array; readonly index: number | undefined }> {
    const untilFrom = () => performance.now() + this.#bucket.link.patienceMs + SILENCE_MS;
    let until = untilFrom();
    for (;;) {
      const item = this.#queue.shift();
      if (typeof item === 'function') {
        item();
      } else if (item !== undefined) {
        this.#next = item.sequence + 1;
        const { data, headers } = item.message;
        return { bytes: data, index: wantsIndex ? this.#indexOf(headers?.get('Nats-Msg-Id')) : undefined };
      } else if (this.#isIdle) {
        await this.#expectMore();
      } else if (this.#broken !== undefined) {
        if (isFinal(this.#broken)) throw this.#broken;
        const wasLost = this.#broken instanceof ConnectionLost;
        await this.#reopen();
        if (wasLost) until = untilFrom();
      } else {
        await this.#arrival(until - performance.now());
      }
      if (performance.now() > until) await this.#giveUp();
    }
  }

  close(): void {
    this.#consumer?.close();
  }

  deliver(delivery: Delivery): void {
    this.#isIdle = false;
    this.#queue.push(delivery);
    this.#wake();
  }

  flowControl(answer: () => void): void {
    this.#queue.push(answer);
    this.#wake();
  }

  idle(): void {
    this.#isIdle = true;
    this.#wake();
  }

  broken(why: Error): void {
    this.#broken = why;
    this.#wake();
  }

  get #subject(): string {
    return chunkSubject(this.#bucket, this.#object.nuid);
  }

  #indexOf(messageId: string | undefined): number | undefined {
    const prefix = `${this.#object.nuid}.`;
    const index = messageId?.startsWith(prefix) ? Number(messageId.slice(prefix.length)) : Number.NaN;
    return Number.isSafeInteger(index) ? index : undefined;
  }

  /** Resolves when something came or happened, or the time is over. */
  async #arrival(ms: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      timer = setTimeout(resolve, Math.min(Math.max(0, ms) + 1, LONGEST_TIMER_MS));
    });
    clearTimeout(timer);
  }

  /** Throws if nothing has come and nothing explains it, once the server has answered: then all it sent is here. */
  async #giveUp(): Promise<void> {
    const { link, name } = this.#bucket;
    await link.ready();
    if (this.#queue.length > 0 || this.#broken instanceof ConnectionLost) return;
    throw new JetliteError(
      'REPLICA',
      `the server answers but sends no more of ${this.#object.name} (bucket ${name}, ${link.url})`,
      {
        hint: 'See its log, and whether what this user publishes to $JS.FC.> reaches JetStream.',
        away: true,
      },
    );
  }

  /** Nothing came for a while although chunks are outstanding: throws if there are none that can be read. */
  async #expectMore(): Promise<void> {
    this.#isIdle = false;
    if (await hasMessageFrom(this.#bucket, this.#subject, this.#next)) {
      // The server that sends is not the stream's leader, and its copy may be worse.
      if (++this.#idleTimes % IDLE_PATIENCE === 0)
        this.#broken = new Error('the server does not send all chunks');
      return;
    }
    if (this.#queue.length > 0) return;
    const { chunks } = this.#object;
    throw damaged(this.#bucket, this.#object, `the server has ${chunks} chunks and cannot read all of them`);
  }

  async #reopen(): Promise<void> {
    await this.#bucket.link.ready();
    await this.open({ sequence: this.#next });
  }
}
