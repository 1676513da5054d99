/**
 * The LTX files of a bucket under one prefix, listed once and from then on kept live by the server's own pushes.
 *
 * 1. One consumer delivers the last meta of every name, then every new one. When it breaks, all is listed again and what
 *    differs is what happened meanwhile: nothing depends on every push arriving.
 * 2. `files` answers with the present: it asks the stream's leader for the newest meta and waits until that has come;
 *    the server that pushes to us may be another one, a little behind.
 * 3. A meta that the server has but cannot read any more is no file.
 * 4. A server before 2.9.12 leaves out pushes where anything else in the stream is purged, as every removal and replacement
 *    does with chunks. There each answer of `files` is a listing of its own.
 */

import { setTimeout as delay } from 'node:timers/promises';
import { ErrorCode, NatsError } from 'nats';
import { printable } from '../../printable.js';
import { type LtxName, parseLtxPath } from '../names.js';
import type { LtxFileInfo } from '../replica.js';
import type { Bucket } from './bucket.js';
import type { Delivery, OrderedConsumer } from './consumer.js';
import { ConnectionLost, isFinal, requestError } from './errors.js';
import type { ReadableObject } from './get.js';
import { openMetas } from './metas.js';
import {
  decodeMeta,
  headerOf,
  metaSubjectStart,
  nameOfMeta,
  newestMeta,
  type StoredObject,
  WRITER_HEADER,
} from './objects.js';

/** Header of the metas of LTX files: the file's time, RFC 3339. Litestream's. */
export const TIMESTAMP_HEADER = 'Litestream-Timestamp';

/** A file as the bucket has it: one flat object, for there may be very many. */
export interface ListedFile extends LtxFileInfo, ReadableObject {
  readonly size: number;
  /** When the server got its meta, by its clock. */
  readonly storedMs: number;
  readonly version: string;
  readonly digest: string;
  /** Empty where it does not say. */
  readonly writer: string;
}

const PUSH_PATIENCE_MS = 2000;
const RELIST_WAIT_MS = 100;
const MAX_TRIES = 3;

/** What a meta under the prefix says of an LTX file; undefined if it is something else. */
export function listedFile(prefix: string, object: StoredObject): ListedFile | undefined {
  if (object.deleted) return undefined;
  const ltx = ltxNameOf(prefix, object.name);
  if (ltx === undefined) return undefined;
  const time = Date.parse(headerOf(object, TIMESTAMP_HEADER) ?? '');
  return {
    level: ltx.level,
    minTxid: ltx.minTxid,
    maxTxid: ltx.maxTxid,
    size: object.size,
    timestampMs: Number.isNaN(time) ? object.storedMs : time,
    storedMs: object.storedMs,
    version: versionOf(object),
    name: object.name,
    nuid: object.nuid,
    chunks: object.chunks,
    chunkSize: object.chunkSize,
    digest: object.digest,
    writer: writerOfObject(object),
    sequence: object.sequence,
  };
}

/** Who put an object, in words; empty where it does not say. Litestream's metas have its header alone. */
export function writerOfObject(object: StoredObject): string {
  const named = headerOf(object, WRITER_HEADER);
  if (named === undefined) return headerOf(object, TIMESTAMP_HEADER) === undefined ? '' : 'Litestream';
  return printable(named);
}

function ltxNameOf(prefix: string, name: string): LtxName | undefined {
  if (prefix === '') return parseLtxPath(name);
  const isUnder = name.startsWith(prefix) && name[prefix.length] === '/';
  return isUnder ? parseLtxPath(name.slice(prefix.length + 1)) : undefined;
}

/** What the listing of a replica shows of a file. */
export function infoOf(file: ListedFile): LtxFileInfo {
  const { level, minTxid, maxTxid, size, timestampMs, version, digest, writer } = file;
  const info: { -readonly [K in keyof LtxFileInfo]: LtxFileInfo[K] } = {
    level,
    minTxid,
    maxTxid,
    size,
    timestampMs,
    version,
  };
  if (digest !== '') info.digest = digest;
  if (writer !== '') info.writer = writer;
  return info;
}

/** Names one version of an object: its meta's sequence and its nuid. */
export function versionOf(object: Pick<StoredObject, 'sequence' | 'nuid'>): string {
  return `${object.sequence}:${object.nuid}`;
}

export function parseVersion(version: string): Pick<StoredObject, 'sequence' | 'nuid'> | undefined {
  const match = /^(\d+):(\S+)$/.exec(version);
  return match === null ? undefined : { sequence: Number(match[1]), nuid: match[2] };
}

/** Hears of files as they come; `end` is the last it hears. */
export interface ListingListener {
  changed(file: ListedFile): void;
  end(error: unknown): void;
}

export class Listing {
  readonly #bucket: Bucket;
  readonly #prefix: string;
  /** What the subjects of metas that may be of files under the prefix begin with. */
  readonly #subjectStart: string;
  readonly #listeners = new Set<ListingListener>();
  #files = new Map<string, ListedFile>();
  #loading: Promise<void> | undefined;
  #consumer: OrderedConsumer | undefined;
  /** Stream sequence of the last meta that was taken in. */
  #sequence = 0;
  #wasListed = false;
  /** Undefined where it is to be looked for. */
  #highest: ListedFile | undefined;
  readonly #waiting = new Set<() => void>();
  readonly #onForgotten: () => void;
  /** The consumer was, and the files have not been listed since. */
  #isForgotten = false;
  #closed = false;

  /**
   * `onForgotten` is called when the server forgot the consumer though the connection stood, and the files are listed anew:
   * the stream may be another one under the same name, or a rolled back one.
   */
  constructor(bucket: Bucket, prefix: string, onForgotten: () => void = () => {}) {
    this.#bucket = bucket;
    this.#prefix = prefix;
    this.#subjectStart = metaSubjectStart(bucket, prefix === '' ? 'ltx/' : `${prefix}/ltx/`);
    this.#onForgotten = onForgotten;
  }

  /** The file of that object name as last heard of. */
  known(name: string): ListedFile | undefined {
    return this.#files.get(name);
  }

  /** The file of level 0 with the highest TXID, as last heard of. */
  get highestLevel0(): ListedFile | undefined {
    if (this.#highest === undefined) {
      for (const file of this.#files.values()) {
        if (isAbove(file, this.#highest)) this.#highest = file;
      }
    }
    return this.#highest;
  }

  /** Whether what others put is being heard of, on the connection as it stands. */
  get isLive(): boolean {
    return this.#consumer !== undefined;
  }

  /**
   * All files there are now, in no order; `anew` lists them all again instead of trusting the pushes, since what the
   * server has lost is never pushed. Throws REPLICA.
   */
  async files(anew = false): Promise<ListedFile[]> {
    if ((anew || !this.#bucket.pushesAll) && this.#loading === undefined) this.#drop();
    for (let tries = 1; ; tries++) {
      const newest = await newestMeta(this.#bucket);
      const isLastTry = tries === MAX_TRIES;
      try {
        await this.#load();
        if (await this.#reach(newest)) return [...this.#files.values()];
        if (isLastTry) throw NatsError.errorForCode(ErrorCode.Timeout);
      } catch (error) {
        if (isLastTry || isFinal(error)) {
          throw requestError(error, 'list the files', this.#bucket.name, this.#bucket.link.url);
        }
        await this.#bucket.link.ready();
      }
      // It may have been forgotten by the server: list again.
      this.#drop();
    }
  }

  /** Tells of every change from now on; the answer ends it. */
  listen(listener: ListingListener): () => void {
    this.#listeners.add(listener);
    if (this.#consumer === undefined) void this.#relist();
    return () => this.#listeners.delete(listener);
  }

  close(): void {
    this.#closed = true;
    this.#drop();
    for (const listener of this.#listeners) listener.end(undefined);
    this.#listeners.clear();
  }

  #drop(): void {
    this.#consumer?.close();
    this.#consumer = undefined;
    this.#advance();
    if (this.#listeners.size > 0 && !this.#closed) void this.#relist();
  }

  #load(): Promise<void> {
    if (this.#consumer !== undefined) return Promise.resolve();
    this.#loading ??= this.#list().finally(() => {
      this.#loading = undefined;
    });
    return this.#loading;
  }

  /** Lists everything anew, then tells the listeners what is different. */
  async #list(): Promise<void> {
    // After a lost connection or a forgotten consumer, and for an audit: its settings may be others by now.
    if (this.#wasListed) await this.#bucket.look();
    const before = this.#files;
    let listed = new Map<string, ListedFile>();
    let live = false;
    const { consumer, sequence } = await openMetas(
      this.#bucket,
      () => {
        listed = new Map();
        return {
          deliver: (delivery) => {
            if (live) this.#take(delivery);
            else this.#takeInto(listed, delivery);
          },
          broken: (why) => {
            if (live && this.#consumer === consumer) this.#break(why);
          },
        };
      },
      () => this.#closed,
    );
    live = true;
    this.#files = listed;
    this.#highest = undefined;
    this.#consumer = consumer;
    this.#sequence = sequence;
    if (!this.#wasListed) {
      this.#wasListed = true;
      return;
    }
    for (const [name, file] of listed) {
      if (before.get(name)?.version !== file.version) this.#tell(file);
    }
    if (!this.#isForgotten) return;
    this.#isForgotten = false;
    this.#onForgotten();
  }

  #break(why: Error): void {
    // Of a lost connection others tell, when it stands again.
    if (!(why instanceof ConnectionLost)) this.#isForgotten = true;
    this.#drop();
  }

  #take(delivery: Delivery): void {
    const file = this.#takeInto(this.#files, delivery);
    this.#sequence = delivery.sequence;
    if (this.#highest !== undefined) {
      if (file !== undefined && isAbove(file, this.#highest)) this.#highest = file;
      else if (!this.#files.has(this.#highest.name)) this.#highest = undefined;
    }
    if (file !== undefined) this.#tell(file);
    this.#advance();
  }

  #tell(file: ListedFile): void {
    for (const listener of this.#listeners) listener.changed(file);
  }

  /** Waits until the meta of that sequence is in. False if it does not come, or the consumer broke. */
  async #reach(sequence: number): Promise<boolean> {
    const until = Date.now() + PUSH_PATIENCE_MS;
    while (this.#consumer !== undefined) {
      if (this.#sequence >= sequence) return true;
      if (Date.now() >= until) return false;
      await new Promise<void>((resolve) => {
        const resume = () => {
          clearTimeout(timer);
          this.#waiting.delete(resume);
          resolve();
        };
        const timer = setTimeout(resume, PUSH_PATIENCE_MS);
        this.#waiting.add(resume);
      });
    }
    return false;
  }

  /** Lists anew for the listeners' sake, for as long as the connection lives. */
  async #relist(): Promise<void> {
    const { link, name } = this.#bucket;
    while (!this.#closed && this.#listeners.size > 0 && this.#consumer === undefined) {
      try {
        await link.ready();
        await this.#load();
      } catch (error) {
        if (!isFinal(error) && !link.connection.isClosed()) {
          await delay(RELIST_WAIT_MS);
          continue;
        }
        for (const listener of this.#listeners)
          listener.end(requestError(error, 'watch the files', name, link.url));
        this.#listeners.clear();
      }
    }
  }

  /** Puts what a meta says into the map; the answer is the file, if it is one. */
  #takeInto(files: Map<string, ListedFile>, delivery: Delivery): ListedFile | undefined {
    const { message, sequence, timestampMs } = delivery;
    const { subject, data } = message;
    // A bucket may hold many times as much of other databases.
    if (!subject.startsWith(this.#subjectStart)) return undefined;
    const object = decodeMeta(this.#bucket, { subject, data, sequence, storedMs: timestampMs });
    if (object === undefined) {
      files.delete(nameOfMeta(this.#bucket, subject));
      return undefined;
    }
    const file = listedFile(this.#prefix, object);
    if (file === undefined) files.delete(object.name);
    else files.set(object.name, file);
    return file;
  }

  #advance(): void {
    for (const resume of this.#waiting) resume();
  }
}

function isAbove(file: ListedFile, highest: ListedFile | undefined): boolean {
  return file.level === 0 && (highest === undefined || file.maxTxid >= highest.maxTxid);
}
