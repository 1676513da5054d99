/**
 * Objects in a bucket, as NATS architecture decision record 20 stores them.
 *
 * An object is its chunks, published to `$O.<bucket>.C.<nuid>`, and then its meta, a JSON text published to
 * `$O.<bucket>.M.<name in base64url, padded>` with a header that rolls up the subject, so that the last meta is the only
 * one. A deleted object leaves a meta that says so.
 *
 * 1. What a meta says is hostile until checked; one that breaks a rule is no object. Its name is taken all the same: whoever
 *    looks a name up learns that something stands there (`unreadable`), and since when.
 * 2. A version of an object is the stream sequence of its meta with its nuid. Replacing and deleting name the sequence
 *    that was seen; the server refuses both if another came after.
 * 3. Metas are read from the stream's leader, never from a copy that may lag behind.
 */

import { headers, type MsgRequest, type StoredMsg } from 'nats';
import type { Bucket } from './bucket.js';
import { Api, apiCode, requestError } from './errors.js';

/** One version of an object, or the mark that a deleted one left. */
export interface StoredObject {
  readonly name: string;
  readonly nuid: string;
  /** Bytes. */
  readonly size: number;
  readonly chunks: number;
  /** Bytes of every chunk but the last; undefined where the writer did not say. */
  readonly chunkSize: number | undefined;
  /** `SHA-256=<base64url>`; empty where there is none. */
  readonly digest: string;
  /** As its writer said; see `headerOf`. */
  readonly headers: unknown;
  readonly deleted: boolean;
  /** Stream sequence of the meta. */
  readonly sequence: number;
  /** When the server stored the meta. */
  readonly storedMs: number;
}

/** Headers of an object as its meta carries them. */
export type ObjectHeaders = Readonly<Record<string, readonly string[]>>;

/** Stands for the nuid of a meta that does not tell its own: no chunks have it. */
const NO_NUID = 'none';

/** Header of our metas: who put the object, for the message that another writer gets. */
export const WRITER_HEADER = 'Jetlite-Writer';

export function metaFilter(bucket: Bucket): string {
  return `$O.${bucket.name}.M.>`;
}

export function metaSubject(bucket: Bucket, name: string): string {
  return `$O.${bucket.name}.M.${padded(Buffer.from(name).toString('base64url'))}`;
}

/** What the meta subjects of all objects begin with whose names begin with `start`, and of few others. */
export function metaSubjectStart(bucket: Bucket, start: string): string {
  const bytes = Buffer.from(start);
  // A digit stands for six bits: the last one may depend on what follows.
  const digits = Math.floor((bytes.length * 8) / 6);
  return `$O.${bucket.name}.M.${bytes.toString('base64url').slice(0, digits)}`;
}

export function chunkSubject(bucket: Bucket, nuid: string): string {
  return `$O.${bucket.name}.C.${nuid}`;
}

/** A SHA-256 as metas carry it. */
export function formatDigest(sha256: Buffer): string {
  return `SHA-256=${padded(sha256.toString('base64url'))}`;
}

function padded(base64url: string): string {
  return base64url.padEnd(Math.ceil(base64url.length / 4) * 4, '=');
}

/** The JSON text of a meta. */
export function encodeMeta(
  bucket: Bucket,
  object: Pick<StoredObject, 'name' | 'nuid' | 'size' | 'chunks' | 'chunkSize' | 'digest' | 'deleted'>,
  headers?: ObjectHeaders,
): Uint8Array {
  const { name, nuid, size, chunks, digest, deleted } = object;
  return Buffer.from(
    JSON.stringify({
      name,
      bucket: bucket.name,
      nuid,
      size,
      chunks,
      digest,
      mtime: new Date().toISOString(),
      ...(deleted ? { deleted } : {}),
      ...(headers === undefined ? {} : { headers }),
      ...(object.chunkSize === undefined ? {} : { options: { max_chunk_size: object.chunkSize } }),
    }),
  );
}

/** A message of the meta subjects. */
export interface MetaMessage {
  readonly subject: string;
  readonly data: Uint8Array;
  readonly sequence: number;
  readonly storedMs: number;
}

/** What a meta says; undefined if it is not that of an object (a link, damaged, under another's name). */
export function decodeMeta(bucket: Bucket, message: MetaMessage): StoredObject | undefined {
  const { data, sequence, storedMs } = message;
  const text = Buffer.isBuffer(data) ? data : Buffer.from(data.buffer, data.byteOffset, data.length);
  let meta: Record<string, unknown> | null;
  try {
    meta = JSON.parse(text.toString());
  } catch {
    return undefined;
  }
  if (meta === null || typeof meta !== 'object') return undefined;
  const { name, nuid, digest = '', deleted = false } = meta;
  const size = meta.size ?? 0;
  const chunks = meta.chunks ?? 0;
  const options = (meta.options ?? {}) as { max_chunk_size?: unknown; link?: unknown };
  if (typeof name !== 'string' || metaSubject(bucket, name) !== message.subject) return undefined;
  if (typeof nuid !== 'string' || typeof digest !== 'string') return undefined;
  if (!isCount(size) || !isCount(chunks) || typeof deleted !== 'boolean' || options?.link) return undefined;
  // A nuid becomes a token of a subject.
  if (!/^[^\s.*>]+$/.test(nuid)) return undefined;
  const chunkSize =
    isCount(options?.max_chunk_size) && options.max_chunk_size > 0 ? options.max_chunk_size : undefined;
  return {
    name,
    nuid,
    size,
    chunks,
    chunkSize,
    digest,
    headers: meta.headers,
    deleted,
    sequence,
    storedMs,
  };
}

/** The name of the object whose meta has this subject, whatever the meta says. */
export function nameOfMeta(bucket: Bucket, subject: string): string {
  return Buffer.from(subject.slice(metaFilter(bucket).length - 1), 'base64url').toString();
}

/** What stands under a name where its meta is none: an object without content, that can be replaced and removed. */
function unreadable(name: string, { sequence, storedMs }: MetaMessage): StoredObject {
  const nothing = {
    size: 0,
    chunks: 0,
    chunkSize: undefined,
    digest: '',
    headers: undefined,
    deleted: false,
  };
  return { name, nuid: NO_NUID, ...nothing, sequence, storedMs };
}

/** True of what `lastMeta` gives for a meta that is none. */
export function isUnreadable(object: Pick<StoredObject, 'nuid'>): boolean {
  return object.nuid === NO_NUID;
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** The first value of a header that the writer of an object gave it. */
export function headerOf({ headers }: Pick<StoredObject, 'headers'>, key: string): string | undefined {
  const values = (headers as Record<string, unknown> | null | undefined)?.[key];
  const first: unknown = Array.isArray(values) ? values[0] : undefined;
  return typeof first === 'string' ? first : undefined;
}

/** The last meta under a name, a deleted or unreadable one too; undefined if the name never existed. */
export async function lastMeta(bucket: Bucket, name: string): Promise<StoredObject | undefined> {
  try {
    const query = { last_by_subj: metaSubject(bucket, name) };
    const { subject, data, seq, time } = await getMessage(bucket, query);
    const message = { subject, data, sequence: seq, storedMs: time.getTime() };
    return decodeMeta(bucket, message) ?? unreadable(name, message);
  } catch (error) {
    if (apiCode(error) === Api.MESSAGE_NOT_FOUND) return undefined;
    throw requestError(error, `look up ${name}`, bucket.name, bucket.link.url);
  }
}

/** Stream sequence of the newest meta in the bucket; 0 if there is none. */
export async function newestMeta(bucket: Bucket): Promise<number> {
  try {
    return (await getMessage(bucket, { last_by_subj: metaFilter(bucket) })).seq;
  } catch (error) {
    if (apiCode(error) === Api.MESSAGE_NOT_FOUND) return 0;
    throw requestError(error, 'list the files', bucket.name, bucket.link.url);
  }
}

/** Whether the leader can read a message of that subject (wildcards allowed) at or after a sequence. */
export async function hasMessageFrom(bucket: Bucket, subject: string, sequence: number): Promise<boolean> {
  try {
    const query: MsgRequest & { next_by_subj: string } = { seq: sequence, next_by_subj: subject };
    await getMessage(bucket, query);
    return true;
  } catch (error) {
    if (apiCode(error) === Api.MESSAGE_NOT_FOUND) return false;
    throw requestError(error, 'look for messages', bucket.name, bucket.link.url);
  }
}

/** A message of the bucket's stream, as its leader has it. */
export function getMessage(bucket: Bucket, query: MsgRequest): Promise<StoredMsg> {
  const { link, manager, stream } = bucket;
  return link.ask(() => manager.streams.getMessage(stream, query));
}

/**
 * Deletes the version of an object, then its chunks. Resolves false, having changed nothing, if another version is
 * there by now.
 */
export async function deleteObject(
  bucket: Bucket,
  object: Pick<StoredObject, 'name' | 'nuid' | 'sequence'>,
): Promise<boolean> {
  const { name, nuid } = object;
  const nothing = { size: 0, chunks: 0, chunkSize: undefined, digest: '', deleted: true };
  const marker = encodeMeta(bucket, { name, nuid, ...nothing });
  try {
    await bucket.link.ask(() =>
      publishMeta(bucket, name, marker, { sequence: object.sequence }, bucket.link.timeoutMs),
    );
  } catch (error) {
    if (apiCode(error) !== Api.WRONG_LAST_SEQUENCE && apiCode(error) !== Api.WRONG_LAST_SEQUENCE_UNKNOWN) {
      throw requestError(error, `remove ${name}`, bucket.name, bucket.link.url);
    }
    // Our own mark, if its answer was lost, or that of an earlier try which did not come to purging.
    const last = await lastMeta(bucket, name);
    if (!last?.deleted || last.nuid !== nuid) return false;
  }
  await purgeChunks(bucket, nuid);
  return true;
}

/** Removes the mark that deleting this version left: its name is free again. What came after it stays. */
export async function purgeMarker(
  bucket: Bucket,
  object: Pick<StoredObject, 'name' | 'nuid'>,
): Promise<void> {
  const marker = await lastMeta(bucket, object.name);
  if (!marker?.deleted || marker.nuid !== object.nuid) return;
  await purgeUpTo(bucket, metaSubject(bucket, object.name), marker.sequence);
}

/** Removes the messages of a subject up to a sequence, that one included. */
export async function purgeUpTo(bucket: Bucket, subject: string, sequence: number): Promise<void> {
  const { link, manager, stream } = bucket;
  try {
    // The server keeps the one that it is told.
    await link.ask(() => manager.streams.purge(stream, { filter: subject, seq: sequence + 1 }));
  } catch (error) {
    throw requestError(error, 'remove leftovers', bucket.name, link.url);
  }
}

/** What the server is to check before it takes a meta: that the last meta of an object has this sequence (0: none). */
export interface Guard {
  readonly sequence: number;
  /** The object; left out, it is the one whose meta is published. Servers before 2.11 know no other, and refuse. */
  readonly name?: string;
}

/**
 * Publishes a meta on the condition of `guard` and, where given, that the last message of the whole stream had the id
 * `lastMessageId`. Resolves with its sequence.
 */
export async function publishMeta(
  bucket: Bucket,
  name: string,
  json: Uint8Array,
  guard: Guard,
  timeout: number,
  lastMessageId?: string,
): Promise<number> {
  const head = headers();
  // Where there is nothing to roll up the header would only do harm: over a message that the server cannot read any more
  // it removes the new one, too (audit.ts).
  const creates = guard.name === undefined && guard.sequence === 0;
  if (!creates) head.set('Nats-Rollup', 'sub');
  head.set('Nats-Expected-Last-Subject-Sequence', `${guard.sequence}`);
  if (guard.name !== undefined) {
    head.set('Nats-Expected-Last-Subject-Sequence-Subject', metaSubject(bucket, guard.name));
  }
  if (lastMessageId !== undefined) head.set('Nats-Expected-Last-Msg-Id', lastMessageId);
  const { seq } = await bucket.jetstream.publish(metaSubject(bucket, name), json, { headers: head, timeout });
  return seq;
}

/** How many messages the server has of a nuid. */
export async function chunkCount(bucket: Bucket, nuid: string): Promise<number> {
  const subject = chunkSubject(bucket, nuid);
  const { link, manager, stream } = bucket;
  const { state } = await link.ask(() => manager.streams.info(stream, { subjects_filter: subject }));
  return state.subjects?.[subject] ?? 0;
}

/** How many messages the server has of each nuid. */
export function chunkCounts(bucket: Bucket): Promise<Map<string, number>> {
  return subjectCounts(bucket, chunkSubject(bucket, '>'));
}

/** How many messages the server has of each subject that a filter, `….>`, takes in; without what stands before the `>`. */
export async function subjectCounts(bucket: Bucket, filter: string): Promise<Map<string, number>> {
  const { link, manager, stream } = bucket;
  try {
    const { state } = await link.ask(() => manager.streams.info(stream, { subjects_filter: filter }));
    const prefix = filter.length - 1;
    return new Map(Object.entries(state.subjects ?? {}).map(([name, count]) => [name.slice(prefix), count]));
  } catch (error) {
    throw requestError(error, 'count the messages', bucket.name, link.url);
  }
}

/** Removes all chunks of a nuid. */
export async function purgeChunks(bucket: Bucket, nuid: string): Promise<void> {
  try {
    const { link, manager, stream } = bucket;
    await link.ask(() => manager.streams.purge(stream, { filter: chunkSubject(bucket, nuid) }));
  } catch (error) {
    throw requestError(error, 'remove chunks', bucket.name, bucket.link.url);
  }
}
