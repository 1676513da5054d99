/**
 * A replica in a NATS JetStream object-store bucket, under names that Litestream uses too.
 *
 * 1. A level-0 name is created on the condition that nothing was ever stored under it (expected sequence 0, kept by the
 *    server): a second writer gets a conflict, and so does one that comes back after the name was removed.
 * 2. Replacing and removing name the sequence of the version that was seen.
 * 3. A level-0 file of another writer above ours is a conflict before anything is put. What there is above is heard of on
 *    the connection that puts: where that was lost, all is listed again before a name is given. So a writer that was cut
 *    off for long is refused also where the marks of removed files have been swept (sweep.ts).
 */

import { createHash } from 'node:crypto';
import { hostname } from 'node:os';
import { Nuid } from 'nats';
import { ConflictError, JetliteError } from '../../errors.js';
import { orAborted } from '../../until-aborted.js';
import { compareFiles, extraPath, type LtxName, ltxPath } from '../names.js';
import { Remembered } from '../remembered.js';
import {
  type AuditFindings,
  type ByteSource,
  type Extra,
  LEASE_NAME,
  type LtxFileInfo,
  type LtxFileTarget,
  type ReadOptions,
  type ReadRange,
  type Replica,
  type SweepOptions,
  type Swept,
} from '../replica.js';
import type { NatsAddress } from './address.js';
import { auditFiles } from './audit.js';
import type { Bucket } from './bucket.js';
import { expectSafe, openBucket, serverClock } from './bucket.js';
import { conflictWith, leaseLost } from './conflict.js';
import { connectNats, type NatsLink, type NatsOptions } from './connect.js';
import type { Environment } from './credentials.js';
import { readObject } from './get.js';
import {
  infoOf,
  type ListedFile,
  Listing,
  listedFile,
  parseVersion,
  TIMESTAMP_HEADER,
  versionOf,
} from './listing.js';
import {
  deleteObject,
  formatDigest,
  lastMeta,
  purgeMarker,
  type StoredObject,
  WRITER_HEADER,
} from './objects.js';
import { Pace } from './pace.js';
import { putObject } from './put.js';
import { sweep } from './sweep.js';
import { watchListing } from './watch.js';

const REMOVALS_AT_ONCE = 8;
/** So many characters of a nuid are random and stay; the others count up. */
const NUID_START = 12;
/** Companion that is written to see the clock of a server that does not tell it. */
const CLOCK_NAME = 'clock';

export interface NatsReplicaOptions {
  /** How to connect: credentials, TLS, timeouts. What is given here goes before what a URL says. */
  readonly nats?: NatsOptions;
  /** Write even into a bucket whose settings let the server drop parts of a replica. */
  readonly allowUnsafeBucket?: boolean;
  /** One line each, for what works but should be looked at. */
  readonly onWarning?: (message: string) => void;
  /** Where NATS_URL and NATS_CREDS are looked up; by default the process's own environment. */
  readonly env?: Environment;
  /** Firing it ends the opening, even of a server that says nothing. */
  readonly signal?: AbortSignal;
}

/** Connects and opens the bucket, which must exist. Throws USAGE, REPLICA, ABORTED. */
export async function openNatsReplica(address: NatsAddress, options: NatsReplicaOptions): Promise<Replica> {
  const opening = connectAndOpen(address, options);
  try {
    return await orAborted(opening, options.signal, `opening bucket ${address.bucket}`);
  } catch (error) {
    opening.then(
      (late) => late.close(),
      () => {},
    );
    throw error;
  }
}

async function connectAndOpen(address: NatsAddress, options: NatsReplicaOptions): Promise<Replica> {
  const onWarning = options.onWarning ?? (() => {});
  const link = await connectNats(address.servers, options.nats, options.env, onWarning);
  try {
    const bucket = await openBucket(link, address.bucket, onWarning);
    return new NatsReplica(bucket, address.prefix, options.allowUnsafeBucket === true);
  } catch (error) {
    await link.close();
    throw error;
  }
}

class NatsReplica implements Replica {
  readonly url: string;
  readonly #link: NatsLink;
  readonly #bucket: Bucket;
  readonly #prefix: string;
  readonly #listing: Listing;
  readonly #pace = new Pace();
  readonly #writer = `${hostname()} (process ${process.pid})`;
  readonly #allowUnsafe: boolean;
  readonly #nuids = new Nuid();
  /** What nuids drawn here begin with, and those drawn elsewhere do not. One, but for the rarest of chances. */
  readonly #nuidStarts = new Set<string>();
  /** Of objects that puts ended with, also where the very same bytes stood there already. */
  readonly #ownNuids = new Remembered();
  readonly #whenReturned = new Set<() => void>();
  /** The highest sequence that a put of ours was acknowledged with. */
  #newestSequence = 0;

  constructor(bucket: Bucket, prefix: string, allowUnsafe: boolean) {
    this.#allowUnsafe = allowUnsafe;
    this.#link = bucket.link;
    this.#bucket = bucket;
    this.#prefix = prefix;
    this.#listing = new Listing(bucket, prefix, () => this.#tellReturn());
    this.url = `${bucket.link.url}/${bucket.name}${prefix === '' ? '' : `/${prefix}`}`;
  }

  async list(level?: number): Promise<LtxFileInfo[]> {
    const files = await this.#listing.files();
    const wanted = level === undefined ? files : files.filter((file) => file.level === level);
    return wanted.map(infoOf).sort(compareFiles);
  }

  async *read(file: LtxFileInfo, range?: ReadRange, options?: ReadOptions): AsyncGenerator<Uint8Array> {
    yield* readObject(this.#bucket, await this.#listed(file), range, options);
  }

  async audit(remembered: readonly LtxFileInfo[] = [], seenMs = Date.now()): Promise<AuditFindings> {
    const listed = await this.#listing.files(true);
    const flaws = await auditFiles(this.#bucket, this.#prefix, listed, remembered, seenMs);
    return { files: listed.map(infoOf).sort(compareFiles), flaws };
  }

  async write(target: LtxFileTarget, content: ByteSource, signal?: AbortSignal): Promise<LtxFileInfo> {
    await this.#expectSafe();
    const name = this.#name(ltxPath(target));
    const isNext = target.level === 0 && target.heals === undefined;
    const expectFree = isNext ? () => this.#expectNothingAbove(target) : undefined;
    await expectFree?.();
    const { timestampMs } = target;
    const put = {
      name,
      headers: () => ({
        [TIMESTAMP_HEADER]: [
          new Date(typeof timestampMs === 'number' ? timestampMs : timestampMs()).toISOString(),
        ],
        [WRITER_HEADER]: [this.#writer],
      }),
      nextNuid: () => this.#nextNuid(),
      replaces: await this.#toReplace(name, target),
      lease: target.lease === undefined ? undefined : this.#lease(target.lease),
      expectFree,
    };
    const newest = this.#newestSequence;
    const stored = await putObject(this.#bucket, this.#pace, put, content, signal);
    this.#ownNuids.add(stored.nuid);
    this.#newestSequence = stored.sequence;
    // A stream only counts up: this one was made anew under the connection, or rolled back.
    if (stored.sequence <= newest) this.#tellReturn();
    return infoOf(listedFile(this.#prefix, stored) as ListedFile);
  }

  async remove(files: readonly LtxFileInfo[], lease?: string): Promise<void> {
    for (let i = 0; i < files.length; i += REMOVALS_AT_ONCE) {
      if (lease !== undefined) await this.#expectLease(lease);
      // Under way together, yet in their order: the marks are published on one connection one after the other.
      await Promise.all(files.slice(i, i + REMOVALS_AT_ONCE).map((file) => this.#remove(file)));
    }
  }

  async sweep(lease: string, options?: SweepOptions): Promise<Swept> {
    const expectLease = () => this.#expectLease(lease);
    await expectLease();
    const nowMs = await this.clock();
    return sweep({ bucket: this.#bucket, prefix: this.#prefix, nowMs, expectLease }, options);
  }

  isOwn(file: LtxFileInfo): boolean {
    const { nuid } = this.#parsed(file.version ?? '');
    return this.#nuidStarts.has(nuid.slice(0, NUID_START)) || this.#ownNuids.has(nuid);
  }

  async takeBack(files: readonly LtxFileInfo[]): Promise<number> {
    let taken = 0;
    for (const file of files) {
      const object = { name: this.#name(ltxPath(file)), ...this.#parsed(file.version ?? '') };
      if (!(await deleteObject(this.#bucket, object))) continue;
      await purgeMarker(this.#bucket, object);
      taken++;
    }
    return taken;
  }

  watch(signal: AbortSignal): AsyncIterable<LtxFileInfo> {
    return watchListing(this.#listing, signal);
  }

  async readExtra(name: string): Promise<Extra | undefined> {
    for (;;) {
      const object = await lastMeta(this.#bucket, this.#name(extraPath(name)));
      if (object === undefined || object.deleted) return undefined;
      try {
        const parts: Uint8Array[] = [];
        for await (const bytes of readObject(this.#bucket, object)) parts.push(bytes);
        return { bytes: Buffer.concat(parts), version: versionOf(object), writtenMs: object.storedMs };
      } catch (error) {
        // Replaced or removed while it was read: the next look shows which.
        const last = await lastMeta(this.#bucket, object.name);
        if (last === undefined || last.sequence === object.sequence) throw error;
      }
    }
  }

  async writeExtra(name: string, bytes: Uint8Array, replaces?: string): Promise<string> {
    const target = this.#name(extraPath(name));
    const last = await lastMeta(this.#bucket, target);
    const stands = last === undefined || last.deleted ? undefined : last;
    if (replaces === 'nothing' && stands !== undefined && !isContent(stands, bytes)) {
      throw new ConflictError(`${target} in bucket ${this.#bucket.name} is there already`);
    }
    const put = {
      name: target,
      headers: () => ({ [WRITER_HEADER]: [this.#writer] }),
      nextNuid: () => this.#nextNuid(),
      // A removed one leaves a mark, which is what creating it again replaces.
      replaces: replaces === undefined || replaces === 'nothing' ? last : this.#parsed(replaces),
    };
    return versionOf(await putObject(this.#bucket, this.#pace, put, () => [bytes]));
  }

  async removeExtra(name: string, version?: string): Promise<void> {
    const target = this.#name(extraPath(name));
    const last = await lastMeta(this.#bucket, target);
    if (last === undefined || last.deleted) return;
    const object = version === undefined ? last : { name: target, ...this.#parsed(version) };
    if (await deleteObject(this.#bucket, object)) return;
    throw new ConflictError(`${target} in bucket ${this.#bucket.name} was replaced by another writer`);
  }

  async clock(): Promise<number> {
    const now = await serverClock(this.#bucket);
    if (now !== undefined) return now;
    await this.writeExtra(CLOCK_NAME, Buffer.from(this.#writer));
    const written = await lastMeta(this.#bucket, this.#name(extraPath(CLOCK_NAME)));
    return written?.storedMs ?? Date.now();
  }

  async storedMs(files: readonly LtxFileInfo[]): Promise<(number | undefined)[]> {
    const listed = await this.#listing.files();
    const byVersion = new Map(listed.map(({ version, storedMs }) => [version, storedMs]));
    return files.map(({ version }) => byVersion.get(version ?? ''));
  }

  get isLost(): boolean {
    return !this.#link.isConnected;
  }

  onReturn(listener: () => void): () => void {
    const forget = this.#link.onReturn(listener);
    this.#whenReturned.add(listener);
    return () => {
      forget();
      this.#whenReturned.delete(listener);
    };
  }

  async close(): Promise<void> {
    this.#listing.close();
    await this.#link.close();
  }

  /** Not the process's own ones: a writer in another container may have the same host name and process number as we. */
  #nextNuid(): string {
    const nuid = this.#nuids.next();
    this.#nuidStarts.add(nuid.slice(0, NUID_START));
    return nuid;
  }

  #tellReturn(): void {
    for (const listener of [...this.#whenReturned]) listener();
  }

  #name(path: string): string {
    return this.#prefix === '' ? path : `${this.#prefix}/${path}`;
  }

  /** The file as the bucket has it. Throws NOT_FOUND if it is gone or another version. */
  async #listed(file: LtxFileInfo): Promise<ListedFile> {
    const name = this.#name(ltxPath(file));
    const matches = (found: ListedFile | undefined): found is ListedFile =>
      found !== undefined && (file.version === undefined || found.version === file.version);
    const known = this.#listing.known(name);
    if (matches(known)) return known;
    const last = await lastMeta(this.#bucket, name);
    const found = last && listedFile(this.#prefix, last);
    if (matches(found)) return found;
    const what = found === undefined ? 'removed' : 'replaced';
    throw new JetliteError(
      'NOT_FOUND',
      `${name} in bucket ${this.#bucket.name} was ${what} after it was listed`,
    );
  }

  async #toReplace(
    name: string,
    { level, replaces, heals }: LtxFileTarget,
  ): Promise<Pick<StoredObject, 'sequence' | 'nuid'> | undefined> {
    if (level > 0) return this.#replaced(name, replaces);
    return heals === undefined || heals === 'nothing' ? undefined : this.#parsed(heals);
  }

  /** What a put at level 1 or above replaces: the version the caller saw, else what stands there now. */
  async #replaced(
    name: string,
    version: string | undefined,
  ): Promise<Pick<StoredObject, 'sequence' | 'nuid'> | undefined> {
    return version === undefined ? lastMeta(this.#bucket, name) : this.#parsed(version);
  }

  #parsed(version: string): Pick<StoredObject, 'sequence' | 'nuid'> {
    const parsed = parseVersion(version);
    if (parsed === undefined)
      throw new JetliteError('USAGE', `${version} is no version of a file in a bucket`);
    return parsed;
  }

  #lease(version: string): { name: string; sequence: number } {
    return { name: this.#name(extraPath(LEASE_NAME)), sequence: this.#parsed(version).sequence };
  }

  async #expectLease(version: string): Promise<void> {
    const { name, sequence } = this.#lease(version);
    const last = await lastMeta(this.#bucket, name);
    if (last?.deleted !== false || last.sequence !== sequence) throw leaseLost(this.#bucket, name, last);
  }

  async #remove(file: LtxFileInfo): Promise<void> {
    const name = this.#name(ltxPath(file));
    const version = await this.#replaced(name, file.version);
    if (version === undefined) return;
    if (await deleteObject(this.#bucket, { name, ...version })) return;
    const last = await lastMeta(this.#bucket, name);
    if (last === undefined || last.deleted) return;
    throw new ConflictError(
      `${name} in bucket ${this.#bucket.name} was replaced by another writer since it was listed`,
    );
  }

  async #expectSafe(): Promise<void> {
    if (!this.#allowUnsafe) await expectSafe(this.#bucket);
  }

  async #expectNothingAbove(target: LtxName): Promise<void> {
    if (!this.#listing.isLive) {
      await this.#listing.files();
      // Listing anew looks at the settings too.
      await this.#expectSafe();
    }
    const highest = this.#listing.highestLevel0;
    if (highest === undefined || highest.maxTxid <= target.maxTxid) return;
    if (this.#ownNuids.has(highest.nuid)) return;
    const last = await lastMeta(this.#bucket, highest.name);
    const above = { ...highest, headers: undefined, deleted: false, storedMs: highest.timestampMs };
    throw conflictWith(this.#bucket, last ?? above, `, above ${ltxPath(target)}`);
  }
}

function isContent(object: StoredObject, bytes: Uint8Array): boolean {
  return object.digest === formatDigest(createHash('sha256').update(bytes).digest());
}
