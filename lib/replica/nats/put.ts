/**
 * Putting an object into a bucket so that it is there as a whole or not at all.
 *
 * 1. Readers join the chunks of a nuid in stream order. So chunks are published in order, a window of them under way;
 *    when the server refuses one, no further one is sent until all have been answered. If it has stored none after
 *    the refused one, sending goes on from there; else the nuid is given up, and the object starts again under a new
 *    one. A chunk whose answer never came always means a new nuid.
 * 2. The meta is published only after all chunks were acknowledged. The one exception is an object of one chunk: chunk
 *    and meta travel together, tied by the chunk's message id, so that the meta is refused where the chunk was.
 * 3. The meta names the sequence of the meta it replaces; 0 creates. An answer that never came is settled by reading
 *    the last meta: the very bytes that were read last from the source, and all of their chunks, are success. A source
 *    may give others each time it is read, so an earlier try of ours that arrives late is a conflict unless it has those.
 *    A nuid whose meta may still be under way is not purged before another meta of the name stands, which the server
 *    then prefers for good.
 * 4. Under a lease the server checks the lease's sequence instead, for it can check only one; the name's is looked at
 *    just before. A server too old to check another subject refuses; then it is the other way round. Since a late meta
 *    is not kept away by the name's sequence then, one with an unknown end is never followed by another nuid.
 * 5. Where another writer may have gone on meanwhile, `expectFree` is asked before each publishing of the meta.
 * 6. What fails for good purges its chunks. Success means that the server has acknowledged every chunk and the meta.
 */

import { setTimeout as delay } from 'node:timers/promises';
import { type ConflictError, JetliteError } from '../../errors.js';
import { orAbortedAfter } from '../../until-aborted.js';
import type { ByteSource } from '../replica.js';
import type { Bucket } from './bucket.js';
import { chunkId, NuidSpoilt, publishChunk, type SentChunks, sendChunks, throwIfAborted } from './chunks.js';
import { conflictWith, leaseLost } from './conflict.js';
import { ASK_AGAIN_MS } from './connect.js';
import { Api, apiCode, isFinal, isPassing, requestError } from './errors.js';
import {
  chunkCount,
  encodeMeta,
  type Guard,
  lastMeta,
  type ObjectHeaders,
  publishMeta,
  purgeChunks,
  type StoredObject,
} from './objects.js';
import type { Pace } from './pace.js';

export interface PutTarget {
  readonly name: string;
  /** Asked in each try, when all of the content has been sent. */
  readonly headers: () => ObjectHeaders;
  /** Names each try; called before anything of it is sent. */
  readonly nextNuid: () => string;
  /** The version to replace, a deleted mark too; undefined if the name must never have existed. */
  readonly replaces: Pick<StoredObject, 'sequence' | 'nuid'> | undefined;
  /** The object, and its version, that must still stand when this one gets its name. */
  readonly lease?: { readonly name: string; readonly sequence: number } | undefined;
  /** Throws if the object must not be put any more. */
  readonly expectFree?: (() => Promise<void>) | undefined;
}

const RETRY_MS = 25;
const PURGE_PATIENCE_MS = 2000;
/** For cleaning up behind a put that was aborted. */
const ABORTED_GRACE_MS = 1500;
/** After so long an upload its first chunks may have been taken for what a killed one left (sweep.ts). */
const SLOW_UPLOAD_MS = 3_600_000;

const beingPut = new Set<string>();

/** Whether a put of this process may publish chunks, or the meta, of a nuid. */
export function isBeingPut(nuid: string): boolean {
  return beingPut.has(nuid);
}

/**
 * Puts an object. Throws ConflictError if another version than the expected one stands under the name, unless it has
 * the very same bytes: then it is the answer. Throws REPLICA if the server refuses or stays away, ABORTED.
 */
export function putObject(
  bucket: Bucket,
  pace: Pace,
  target: PutTarget,
  content: ByteSource,
  signal?: AbortSignal,
): Promise<StoredObject> {
  const putting = new Put(bucket, pace, target, content, signal).run();
  return orAbortedAfter(putting, signal, ABORTED_GRACE_MS, 'the put');
}

class Put {
  readonly #bucket: Bucket;
  readonly #pace: Pace;
  readonly #target: PutTarget;
  readonly #content: ByteSource;
  readonly #signal: AbortSignal | undefined;
  /** Nuids that may have chunks in the bucket. */
  readonly #tried = new Set<string>();
  readonly #begun: string[] = [];
  /** Those of them whose meta may have been accepted, or may yet be. */
  readonly #undecided = new Set<string>();
  /** Nuids of others whose place ours takes. */
  readonly #replaced = new Set<string>();
  /** What the source gave when it was read last; undefined while it is read. */
  #latest: StoredObject | undefined;
  /** Sequence of the meta that ours is to replace; 0 for none. */
  #expected: number;
  /** Another version than the expected one stands under the name. */
  #isTaken = false;
  /** True once the server has shown that it cannot check the lease. */
  #leaseUnchecked = false;
  #lastProgress = Date.now();
  #unanswered = 0;

  constructor(
    bucket: Bucket,
    pace: Pace,
    target: PutTarget,
    content: ByteSource,
    signal: AbortSignal | undefined,
  ) {
    this.#bucket = bucket;
    this.#pace = pace;
    this.#target = target;
    this.#content = content;
    this.#signal = signal;
    this.#expected = target.replaces?.sequence ?? 0;
    if (target.replaces !== undefined) this.#replaced.add(target.replaces.nuid);
  }

  async run(): Promise<StoredObject> {
    try {
      return await this.#run();
    } finally {
      for (const nuid of this.#begun) beingPut.delete(nuid);
    }
  }

  async #run(): Promise<StoredObject> {
    try {
      const stored = await this.#untilStored();
      const left = [...this.#tried, ...this.#replaced].filter((nuid) => nuid !== stored.nuid);
      await this.#purge(left);
      return stored;
    } catch (error) {
      const settled = this.#isTaken && this.#target.lease === undefined;
      await this.#purge([...this.#tried].filter((nuid) => settled || !this.#undecided.has(nuid)));
      throw requestError(error, `put ${this.#target.name}`, this.#bucket.name, this.#bucket.link.url);
    }
  }

  async #untilStored(): Promise<StoredObject> {
    for (;;) {
      const nuid = this.#target.nextNuid();
      this.#tried.add(nuid);
      this.#begun.push(nuid);
      beingPut.add(nuid);
      try {
        return await this.#attempt(nuid);
      } catch (error) {
        if (!(error instanceof NuidSpoilt)) throw error;
        this.#unanswered++;
        if (this.#isOutOfPatience()) throw error.cause ?? error;
      }
      await this.#bucket.link.ready(undefined, this.#signal);
      await this.#expectBucket();
      if (this.#undecided.size > 0) {
        const last = await lastMeta(this.#bucket, this.#target.name);
        const isOurs = last !== undefined && this.#tried.has(last.nuid);
        if (isOurs && (await this.#stands(last))) return last;
      }
      if (!this.#undecided.has(nuid)) await this.#purge([nuid]);
      else if (this.#target.lease !== undefined) throw this.#undecidedError();
      await delay(RETRY_MS);
    }
  }

  async #attempt(nuid: string): Promise<StoredObject> {
    const begunMs = Date.now();
    this.#latest = undefined;
    const sent = await sendChunks(
      {
        bucket: this.#bucket,
        pace: this.#pace,
        nuid,
        signal: this.#signal,
        earlyPatienceMs: this.#quickMs,
        leaveOnly: !this.#bucket.replicated,
        beforeLarge: () => this.#refuseEarly(),
        onProgress: () => this.#progress(),
        isOutOfPatience: () => this.#isOutOfPatience(),
      },
      this.#content,
    );
    throwIfAborted(this.#signal);
    if (sent.only === undefined && Date.now() - begunMs > SLOW_UPLOAD_MS)
      await this.#expectChunks(nuid, sent.chunks);
    const headers = this.#target.headers();
    const object = this.#objectOf(nuid, sent, headers);
    this.#latest = object;
    const json = encodeMeta(this.#bucket, object, headers);
    const standing = await this.#lookBefore();
    if (standing !== undefined) return standing;
    await this.#target.expectFree?.();
    const answer =
      sent.only === undefined
        ? await this.#answerOf(publishMeta(this.#bucket, object.name, json, this.#guard, this.#quickMs))
        : await this.#publishPair(object, sent.only, json);
    return this.#settleMeta(object, json, answer);
  }

  #objectOf(nuid: string, sent: SentChunks, headers: ObjectHeaders): StoredObject {
    const { name } = this.#target;
    const { size, chunks, chunkSize, digest } = sent;
    return { name, nuid, size, chunks, chunkSize, digest, headers, deleted: false, sequence: 0, storedMs: 0 };
  }

  /** Chunk and meta together; the answer is the meta's. Throws NuidSpoilt if the chunk may not be there. */
  async #publishPair(object: StoredObject, chunk: Uint8Array, json: Uint8Array): Promise<Answer> {
    const { nuid, name } = object;
    const [chunkAnswer, metaAnswer] = await Promise.all([
      this.#answerOf(publishChunk(this.#bucket, nuid, 0, chunk, this.#quickMs)),
      this.#answerOf(publishMeta(this.#bucket, name, json, this.#guard, this.#quickMs, chunkId(nuid, 0))),
    ]);
    // The meta stands only if the chunk does, whatever became of the chunk's own answer.
    if (metaAnswer.ok || chunkAnswer.ok) return metaAnswer;
    if (isUnknown(metaAnswer.error)) this.#undecided.add(nuid);
    if (apiCode(chunkAnswer.error) === Api.TOO_MANY_REQUESTS) await delay(this.#pace.refused());
    else if (!isPassing(chunkAnswer.error)) throw chunkAnswer.error;
    throw new NuidSpoilt('the chunk was not acknowledged', { cause: chunkAnswer.error });
  }

  /** Finds out what became of a meta, publishing it again where it can only be so that nothing did. */
  async #settleMeta(object: StoredObject, json: Uint8Array, first: Answer): Promise<StoredObject> {
    for (let answer = first; ; ) {
      if (answer.ok) return { ...object, sequence: answer.sequence, storedMs: Date.now() };
      const { error } = answer;
      if (isUnknown(error)) {
        this.#unanswered++;
        this.#undecided.add(object.nuid);
        await this.#bucket.link.ready(undefined, this.#signal);
      } else if (!isRefusedInTurn(error)) {
        throw error;
      }
      const last = await lastMeta(this.#bucket, object.name);
      if (last !== undefined && last.sequence !== this.#expected) {
        if (await this.#stands(last)) return last;
        if (last.sequence !== this.#expected) throw this.#conflict(last);
      }
      if (this.#target.lease !== undefined) await this.#settleLease(error);
      if (this.#isOutOfPatience()) throw error;
      await this.#expectBucket();
      // A server that came back may have lost what it had acknowledged.
      if (isUnknown(error)) await this.#expectChunks(object.nuid, object.chunks, error);
      await delay(apiCode(error) === Api.TOO_MANY_REQUESTS ? this.#pace.refused() : RETRY_MS);
      await this.#target.expectFree?.();
      answer = await this.#answerOf(publishMeta(this.#bucket, object.name, json, this.#guard, this.#quickMs));
    }
  }

  async #expectChunks(nuid: string, chunks: number, cause?: unknown): Promise<void> {
    if ((await chunkCount(this.#bucket, nuid)) === chunks) return;
    throw new NuidSpoilt('chunks are missing', { cause });
  }

  get #guard(): Guard {
    const { lease } = this.#target;
    return lease === undefined || this.#leaseUnchecked ? { sequence: this.#expected } : lease;
  }

  /** Under a lease, lease and name are looked at, of which the server checks one. The answer is our bytes, if they stand. */
  async #lookBefore(): Promise<StoredObject | undefined> {
    if (this.#target.lease === undefined) return undefined;
    await this.#expectLease();
    const last = await lastMeta(this.#bucket, this.#target.name);
    if (last !== undefined && last.sequence !== this.#expected) {
      if (await this.#stands(last)) return last;
      if (last.sequence !== this.#expected) throw this.#conflict(last);
    }
    this.#expected = last?.sequence ?? 0;
    return undefined;
  }

  /** Why a meta under a lease was not taken: the lease is lost, or the server compared it with the wrong subject. */
  async #settleLease(error: unknown): Promise<void> {
    await this.#expectLease();
    if (apiCode(error) === Api.WRONG_LAST_SEQUENCE) this.#leaseUnchecked = true;
  }

  async #expectLease(): Promise<void> {
    const { lease } = this.#target;
    if (lease === undefined) return;
    const last = await lastMeta(this.#bucket, lease.name);
    if (last !== undefined && !last.deleted && last.sequence === lease.sequence) return;
    throw leaseLost(this.#bucket, lease.name, last);
  }

  #undecidedError(): JetliteError {
    return new JetliteError(
      'REPLICA',
      `it is not known whether ${this.#target.name} was put in bucket ${this.#bucket.name}: no answer came`,
      { hint: 'It is looked at again, and put again if need be, with the next merge.' },
    );
  }

  /** A leader that died does not answer, a slow one needs time: little at first, then more and more. */
  get #quickMs(): number {
    return Math.min(this.#bucket.link.timeoutMs, ASK_AGAIN_MS * 2 ** this.#unanswered);
  }

  /**
   * True if the very bytes stand there, and all of their chunks. Where the server has lost some of these, that meta is
   * the one to be replaced.
   */
  async #stands(last: StoredObject): Promise<boolean> {
    if (this.#latest === undefined || !sameBytes(last, this.#latest)) return false;
    if ((await chunkCount(this.#bucket, last.nuid)) === last.chunks) return true;
    this.#expected = last.sequence;
    this.#replaced.add(last.nuid);
    return false;
  }

  /** Before much is sent in vain: a name that is taken for ever can be told at once. */
  async #refuseEarly(): Promise<void> {
    const last = await lastMeta(this.#bucket, this.#target.name);
    if (last?.deleted && last.sequence !== this.#expected) throw this.#conflict(last);
  }

  #conflict(last: StoredObject): ConflictError {
    this.#isTaken = true;
    // An earlier try of ours may be what stands there.
    this.#tried.delete(last.nuid);
    return conflictWith(this.#bucket, last);
  }

  /** What a publish came to; a lost connection answers at once. */
  async #answerOf(publishing: Promise<number>): Promise<Answer> {
    try {
      const sequence = await this.#bucket.link.orLost(publishing);
      this.#progress();
      return { ok: true, sequence };
    } catch (error) {
      return { ok: false, error };
    }
  }

  /** A server answers publishes to a bucket that was deleted with silence. */
  async #expectBucket(): Promise<void> {
    const { link, manager, stream } = this.#bucket;
    try {
      await link.ask(() => manager.streams.info(stream));
    } catch (error) {
      if (isFinal(error)) throw error;
    }
  }

  #progress(): void {
    this.#lastProgress = Date.now();
  }

  #isOutOfPatience(): boolean {
    return Date.now() - this.#lastProgress > this.#bucket.link.patienceMs;
  }

  /** As far as it can be done: what stays behind is unreachable, and an audit of the bucket finds it. */
  async #purge(nuids: readonly string[]): Promise<void> {
    try {
      if (nuids.length > 0) await this.#bucket.link.ready(PURGE_PATIENCE_MS);
      for (const nuid of nuids) {
        await purgeChunks(this.#bucket, nuid);
        this.#tried.delete(nuid);
      }
    } catch {
      // The put's own end is what matters to its caller.
    }
  }
}

type Answer =
  | { readonly ok: true; readonly sequence: number }
  | { readonly ok: false; readonly error: unknown };

/** True if the message may have been stored, or may yet be. */
function isUnknown(error: unknown): boolean {
  return isPassing(error) && apiCode(error) !== Api.TOO_MANY_REQUESTS;
}

/** True if the message was not stored, for a reason that another message or the moment gave. */
function isRefusedInTurn(error: unknown): boolean {
  const code = apiCode(error);
  return (
    code === Api.TOO_MANY_REQUESTS ||
    code === Api.WRONG_LAST_MSG_ID ||
    code === Api.WRONG_LAST_SEQUENCE ||
    code === Api.WRONG_LAST_SEQUENCE_UNKNOWN
  );
}

function sameBytes(a: StoredObject, b: StoredObject): boolean {
  return !a.deleted && a.size === b.size && a.digest === b.digest;
}
