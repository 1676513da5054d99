/**
 * Sending the chunks of one nuid: in order, a window of them under way, never one out of place (invariant 1 of put.ts).
 */

import { createHash } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { headers } from 'nats';
import { JetliteError } from '../../errors.js';
import type { ByteSource } from '../replica.js';
import type { Bucket } from './bucket.js';
import { Api, apiCode, isPassing } from './errors.js';
import { chunkSubject, formatDigest } from './objects.js';
import type { Pace } from './pace.js';

/** What was sent. */
export interface SentChunks {
  readonly size: number;
  readonly chunks: number;
  readonly chunkSize: number;
  readonly digest: string;
  /** The chunk that was left to the caller to send. */
  readonly only: Uint8Array | undefined;
}

export interface Sending {
  readonly bucket: Bucket;
  readonly pace: Pace;
  readonly nuid: string;
  readonly signal: AbortSignal | undefined;
  /** How long the acknowledgement of one of the first chunks is waited for: to start again costs little then. */
  readonly earlyPatienceMs: number;
  /** Leave the chunk of an object that has but one to the caller. */
  readonly leaveOnly: boolean;
  /** Called before anything of an object of several chunks is sent; may throw to stop. */
  readonly beforeLarge: () => Promise<void>;
  /** The server acknowledged something. */
  readonly onProgress: () => void;
  readonly isOutOfPatience: () => boolean;
}

const EARLY_CHUNKS = 16;
/** After this time without an answer it is looked whether the stream has another leader. */
const LOOK_MS = 1000;

/** The nuid is of no use any more: the order of its chunks is broken, or unknown. */
export class NuidSpoilt extends Error {}

/**
 * Sends all of `content`. When it throws, nothing of the nuid is under way any more as far as can be known: NuidSpoilt
 * if the object may start again, otherwise what cannot be helped.
 */
export async function sendChunks(sending: Sending, content: ByteSource): Promise<SentChunks> {
  const { signal } = sending;
  const chunkSize = chunkSizeNow(sending);
  const window = new ChunkWindow(sending, chunkSize);
  const hash = createHash('sha256');
  let size = 0;
  let chunks = 0;
  let held: Uint8Array | undefined;
  try {
    for await (const chunk of cut(content(), chunkSize, window.spare)) {
      throwIfAborted(signal);
      hash.update(chunk);
      size += chunk.length;
      chunks++;
      if (chunks === 2) await sending.beforeLarge();
      if (held !== undefined) await window.send(held);
      held = chunk;
    }
    if (held !== undefined && (chunks > 1 || !sending.leaveOnly)) {
      await window.send(held);
      held = undefined;
    }
    await window.allStored();
  } finally {
    await window.settled();
  }
  return { size, chunks, chunkSize, digest: formatDigest(hash.digest()), only: held };
}

function chunkSizeNow({ bucket, pace }: Sending): number {
  return pace.chunkSize(bucket.link.connection.info?.max_payload ?? -1, bucket.maxMessageSize);
}

/** Sends one chunk under the message id of `chunkId`; resolves with its sequence when the server has stored it. */
export async function publishChunk(
  bucket: Bucket,
  nuid: string,
  index: number,
  bytes: Uint8Array,
  timeout: number,
): Promise<number> {
  const head = headers();
  head.set('Nats-Msg-Id', chunkId(nuid, index));
  return (await bucket.jetstream.publish(chunkSubject(bucket, nuid), bytes, { headers: head, timeout })).seq;
}

export function chunkId(nuid: string, index: number): string {
  return `${nuid}.${index}`;
}

export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new JetliteError('ABORTED', 'the put was stopped', { cause: signal.reason });
}

/**
 * Cuts bytes into chunks of one size, the last one shorter; each is a copy, since the source may use its memory again while
 * the chunk is under way. `spare`: memory of chunks that nobody needs any more.
 */
async function* cut(
  source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  chunkSize: number,
  spare: Uint8Array[],
): AsyncGenerator<Uint8Array> {
  let chunk: Uint8Array = new Uint8Array(0);
  let gathered = 0;
  let isFirst = true;
  for await (const bytes of source) {
    for (let from = 0; from < bytes.length; ) {
      const rest = bytes.length - from;
      if (gathered + rest > chunk.length && chunk.length < chunkSize) {
        const before = chunk;
        // Most objects are small and come in one piece.
        chunk =
          isFirst && rest < chunkSize ? new Uint8Array(rest) : (spare.pop() ?? new Uint8Array(chunkSize));
        chunk.set(before.subarray(0, gathered));
        isFirst = false;
      }
      const size = Math.min(rest, chunk.length - gathered);
      chunk.set(bytes.subarray(from, from + size), gathered);
      from += size;
      gathered += size;
      if (gathered === chunkSize) {
        yield chunk;
        chunk = new Uint8Array(0);
        gathered = 0;
      }
    }
  }
  if (gathered > 0) yield chunk.subarray(0, gathered);
}

interface Chunk {
  readonly index: number;
  readonly bytes: Uint8Array;
}

/** The chunks of one nuid that wait to be sent or to be acknowledged. */
class ChunkWindow {
  /** Memory of chunks that are stored: the connection has sent them, and nobody else has them. */
  readonly spare: Uint8Array[] = [];
  readonly #sending: Sending;
  readonly #chunkSize: number;
  /** To be sent, in order. */
  readonly #queue: Chunk[] = [];
  /** Refused for certain; the server stored nothing of them. */
  #refused: Chunk[] = [];
  #refusal: unknown;
  #inFlight = 0;
  #sent = 0;
  #highestStored = -1;
  #waiting = false;
  #ended = false;
  #failure: unknown;
  /** What was not answered yet never will be. */
  #lost = false;
  readonly #forgetLost: () => void;
  /** Who led the stream when sending began. */
  readonly #leader: string;
  readonly #looking: NodeJS.Timeout | undefined;
  #wasAnswered = true;
  #changed: () => void = () => {};
  readonly #wake = () => this.#changed();

  constructor(sending: Sending, chunkSize: number) {
    this.#sending = sending;
    this.#chunkSize = chunkSize;
    sending.signal?.addEventListener('abort', this.#wake);
    this.#forgetLost = sending.bucket.link.onLost((error) => {
      this.#lose(new NuidSpoilt('the connection was lost', { cause: error }));
    });
    const { leader, replicated } = sending.bucket;
    this.#leader = leader.seen;
    this.#looking = replicated ? setInterval(() => this.#lookForLeader(), LOOK_MS) : undefined;
  }

  /** Resolves when the chunk is on its way. */
  async send(bytes: Uint8Array): Promise<void> {
    this.#queue.push({ index: this.#sent++, bytes });
    this.#pump();
    await this.#until(() => this.#queue.length === 0);
  }

  async allStored(): Promise<void> {
    await this.#until(() => this.#queue.length === 0 && this.#inFlight === 0 && !this.#waiting);
  }

  /** Resolves, without regard to how, when every answer that can still come has come. */
  async settled(): Promise<void> {
    this.#ended = true;
    while (this.#inFlight > 0 && !this.#lost) await this.#change();
    clearInterval(this.#looking);
    this.#forgetLost();
    this.#sending.signal?.removeEventListener('abort', this.#wake);
  }

  async #until(reached: () => boolean): Promise<void> {
    for (;;) {
      throwIfAborted(this.#sending.signal);
      if (this.#failure !== undefined) throw this.#failure;
      if (reached()) return;
      await this.#change();
    }
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#changed = resolve;
    });
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
    this.#changed();
  }

  #lose(error: NuidSpoilt): void {
    this.#lost = true;
    this.#fail(error);
  }

  #lookForLeader(): void {
    const isMissing = this.#inFlight > 0 && !this.#wasAnswered;
    this.#wasAnswered = this.#inFlight === 0;
    if (!isMissing) return;
    this.#sending.bucket.leader.look().then(
      (now) => {
        if (now !== this.#leader) this.#lose(new NuidSpoilt('the stream has another leader'));
      },
      () => {}, // Nobody leads just now; the next look may find somebody.
    );
  }

  #pump(): void {
    while (
      this.#queue.length > 0 &&
      this.#inFlight < this.#sending.pace.window &&
      this.#failure === undefined &&
      !this.#ended &&
      this.#refused.length === 0 &&
      !this.#waiting
    ) {
      this.#publish(this.#queue.shift() as Chunk);
    }
    this.#changed();
  }

  #publish(chunk: Chunk): void {
    const { bucket, nuid, pace, earlyPatienceMs, onProgress } = this.#sending;
    this.#inFlight++;
    const patienceMs = chunk.index < EARLY_CHUNKS ? earlyPatienceMs : bucket.link.timeoutMs;
    publishChunk(bucket, nuid, chunk.index, chunk.bytes, patienceMs)
      .then(
        () => {
          this.#wasAnswered = true;
          if (chunk.bytes.length === this.#chunkSize) this.spare.push(chunk.bytes);
          this.#highestStored = Math.max(this.#highestStored, chunk.index);
          pace.accepted();
          onProgress();
        },
        (error) => {
          if (apiCode(error) === Api.TOO_MANY_REQUESTS) {
            this.#refusal = error;
            this.#refused.push(chunk);
          } else if (isPassing(error)) {
            this.#fail(new NuidSpoilt('a chunk was not acknowledged', { cause: error }));
          } else {
            this.#fail(error);
          }
        },
      )
      .then(() => {
        this.#inFlight--;
        if (this.#refused.length > 0 && this.#inFlight === 0 && !this.#ended) this.#sendRefusedAgain();
        this.#pump();
      });
  }

  /** Everything under way has been answered: chunks that were refused may be sent again if none overtook them. */
  #sendRefusedAgain(): void {
    const refused = this.#refused.sort((a, b) => a.index - b.index);
    const waitMs = this.#sending.pace.refused();
    if (this.#sending.isOutOfPatience()) {
      this.#fail(this.#refusal);
    } else if (chunkSizeNow(this.#sending) < this.#chunkSize) {
      this.#fail(new NuidSpoilt('the server takes only smaller chunks', { cause: this.#refusal }));
    } else if (this.#highestStored > refused[0].index) {
      this.#fail(new NuidSpoilt('a chunk overtook a refused one', { cause: this.#refusal }));
    } else {
      this.#refused = [];
      this.#queue.unshift(...refused);
      this.#waiting = true;
      void delay(waitMs).then(() => {
        this.#waiting = false;
        this.#pump();
      });
    }
  }
}
