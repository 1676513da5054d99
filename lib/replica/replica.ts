/**
 * Where LTX files live. One small interface; a folder, a NATS bucket and a zip file implement it.
 *
 * Invariants every home keeps:
 * 1. A file is visible under its name only when all its bytes are durable: what `write` returned for is there,
 *    what it threw for is not (or is byte for byte the same, see 3).
 * 2. A level-0 file is created only if its name never existed. Otherwise `write` throws a ConflictError and
 *    nothing has changed.
 * 3. Writing again the very bytes that stand under a name is success: a put is repeated after a lost acknowledgement,
 *    or by the same writer after a restart.
 * 4. `list` shows only files whose names parse; everything else is left alone.
 */

/** One LTX file of a replica as its listing shows it. */
export interface LtxFileInfo {
  /** 0 as captured, 1..8 merged, 9 full snapshots. */
  readonly level: number;
  readonly minTxid: bigint;
  readonly maxTxid: bigint;
  /** Bytes. */
  readonly size: number;
  /** The file's time, milliseconds since the epoch: the time of its last commit. */
  readonly timestampMs: number;
  /** What names exactly this version of the file in its home (NATS: the meta's sequence and nuid). Opaque. */
  readonly version?: string;
  /** Names the content where its home knows it (NATS: SHA-256). Two versions of one digest are the same file. */
  readonly digest?: string;
  /** Who put it, in words, where the home tells: "host (process 7)". */
  readonly writer?: string;
}

/** A file that is not, or not wholly, where it should be. */
export interface FileFlaw {
  readonly file: LtxFileInfo;
  /**
   * `missing`: gone without a trace. `removed`: somebody took it away, as merges and retention do. `gone`: one of these,
   * the home cannot tell. `replaced`: other bytes stand under its name. `damaged`: its name stands, its content does not.
   */
  readonly kind: 'missing' | 'removed' | 'gone' | 'replaced' | 'damaged';
  /** What was expected and what was found, without the name of the file. */
  readonly message: string;
}

/** What a look at a home's metadata found. */
export interface AuditFindings {
  /** All files there are, damaged ones too, as `list` gives them. */
  readonly files: readonly LtxFileInfo[];
  readonly flaws: readonly FileFlaw[];
}

/** How old leftovers must be, by the home's clock, to be swept. Left out: as old as proves that nobody needs them. */
export interface SweepOptions {
  /** Of the mark that a removed file left, ms. */
  readonly markAgeMs?: number;
  /** Of what is there of a file that was never put to its end, ms. */
  readonly uploadAgeMs?: number;
  readonly signal?: AbortSignal | undefined;
}

export interface Swept {
  /** Marks of removed files. */
  readonly marks: number;
  /** Puts that were cut off, of whatever program. */
  readonly uploads: number;
  /** False where more was found than is done at a time. */
  readonly isDone: boolean;
  /** Why what was cut off stays, where there is any. */
  readonly obstacle?: string;
}

/** What a writer says of a file before its bytes. */
export interface LtxFileTarget {
  readonly level: number;
  readonly minTxid: bigint;
  readonly maxTxid: bigint;
  /** A function is asked when all of the content has been read: what is read meanwhile may go on changing. */
  readonly timestampMs: number | (() => number);
  /**
   * Level 1 and above: the `version` of the file this one replaces, as listed; if another stands there by now, `write`
   * throws a ConflictError. Left out, it replaces whatever stands under the name when the write begins.
   */
  readonly replaces?: string;
  /**
   * Level 0: puts again what the home has lost, below whatever stands above: `nothing` where no file stands under the
   * name, else the `version` of the damaged one that this one replaces.
   */
  readonly heals?: string;
  /**
   * Version of the companion `lease` that must still stand when the name is given, else `write` throws a
   * LeaseLostError. NATS checks it together with the publishing (servers before 2.11: just before); a folder just before.
   */
  readonly lease?: string;
}

/** Name of the companion that says who may merge and remove files. */
export const LEASE_NAME = 'lease';

/** A small companion of the files, as it was read. */
export interface Extra {
  readonly bytes: Uint8Array;
  /** Names exactly this version. Opaque. */
  readonly version: string;
  /** When it was written, ms since the epoch, by the home's own clock: compare it with `Replica.clock`. */
  readonly writtenMs: number;
}

/**
 * Bytes to write, in order, each piece unchanged until the next is asked for. A function, so that a failed put can start
 * again from the first byte.
 */
export type ByteSource = () => AsyncIterable<Uint8Array> | Iterable<Uint8Array>;

export interface ReadRange {
  /** First byte. */
  readonly offset: number;
  /** Number of bytes; the end of the file may come earlier. */
  readonly length: number;
}

export interface ReadOptions {
  /** For many files read whole side by side: little is fetched ahead of what was asked for. */
  readonly onDemand?: boolean;
}

export interface Replica {
  /** For messages: where this is, with everything secret left out. */
  readonly url: string;

  /** The files of one level, or of all levels, ascending by level, then minTxid, then maxTxid. */
  list(level?: number): Promise<LtxFileInfo[]>;

  /**
   * The bytes of a file, whole or a range of it. A chunk is the consumer's only until it asks for the next.
   * Throws JetliteError NOT_FOUND if the file is no longer there, FORMAT if its home can tell that it is damaged.
   */
  read(file: LtxFileInfo, range?: ReadRange, options?: ReadOptions): AsyncIterable<Uint8Array>;

  /**
   * Looks from metadata alone whether every file is whole, and what became of the `remembered` ones: files as `write`
   * or `list` gave them earlier, the last time at `seenMs` (the present if left out). Nothing is believed that was learned
   * before.
   */
  audit?(remembered?: readonly LtxFileInfo[], seenMs?: number): Promise<AuditFindings>;

  /** Puts a file; resolves when it is durable. See invariants 1 to 3. */
  write(target: LtxFileTarget, content: ByteSource, signal?: AbortSignal): Promise<LtxFileInfo>;

  /**
   * Removes exactly these versions, in this order; a file that is gone already is no error. One that another writer replaced since
   * it was listed stays, and a ConflictError says so. `lease` is as in LtxFileTarget, looked at just before each removal:
   * LeaseLostError, and no further file is removed.
   */
  remove(files: readonly LtxFileInfo[], lease?: string): Promise<void>;

  /**
   * Removes what nobody can see and nothing needs: what removing and puts that were cut off have left. `lease` is as in
   * `remove`. A home that is left none has nothing to sweep.
   */
  sweep?(lease: string, options?: SweepOptions): Promise<Swept>;

  /** Whether this version of a level-0 file was put through this object; known before anybody can see the file. */
  isOwn(file: LtxFileInfo): boolean;

  /**
   * Removes level-0 files of our own as if they had never been put: their names are free again. Those that another
   * writer has replaced stay. Resolves with how many were removed.
   */
  takeBack(files: readonly LtxFileInfo[]): Promise<number>;

  /** New and changed files from now on, as the home learns of them. Ends when the signal fires. */
  watch(signal: AbortSignal): AsyncIterable<LtxFileInfo>;

  /** A small companion (page sums, lease) under `jetlite/`, invisible to other programs. Undefined if absent. */
  readExtra(name: string): Promise<Extra | undefined>;

  /**
   * Writes a companion; resolves with its version when it is durable. `replaces` is the version that must stand there,
   * or `'nothing'`: of writers of different bytes that name the same one wins, the others get a ConflictError. Left out, whatever stands there is replaced.
   */
  writeExtra(name: string, bytes: Uint8Array, replaces?: string): Promise<string>;

  /** Removes a companion, or only this version of it (ConflictError if another stands there). Gone already is no error. */
  removeExtra(name: string, version?: string): Promise<void>;

  /** The present by the home's own clock, ms since the epoch. It may differ from ours, and by a little from itself. */
  clock(): Promise<number>;

  /** When the home got each of these files, by its own clock; undefined for one that it cannot tell of. */
  storedMs?(files: readonly LtxFileInfo[]): Promise<(number | undefined)[]>;

  /** Whether the home is known to be out of reach; a home that shows it only when it is asked has none of this. */
  readonly isLost?: boolean;

  /**
   * Calls back each time the home answers again after it could not be reached, or shows that it is not what it was: it may
   * have lost something meanwhile.
   * The answer takes the wish back.
   */
  onReturn?(listener: () => void): () => void;

  /** Lets go of connections and handles. Nothing may be called afterwards. */
  close(): Promise<void>;
}
