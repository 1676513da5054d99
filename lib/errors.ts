/**
 * The errors a user of the library can catch. Each carries a `code` that stays the same between versions,
 * a one-line message (what was expected, what was found, where) and, where one exists, a `hint`: what to do.
 *
 * No message ever holds a password, token, seed or the user part of a URL.
 */

export type ErrorCode =
  /** Bad options, arguments or configuration. */
  | 'USAGE'
  /** A file is not what it should be: wrong magic, damaged, truncated, contradicting itself. */
  | 'FORMAT'
  /** The source database cannot be used: a directory, not SQLite, unreadable, changed its page size. */
  | 'DATABASE'
  /** The source database does not exist (yet), or holds nothing. */
  | 'NO_DATABASE'
  /** No consistent image of the source could be proven within the bound. */
  | 'CAPTURE'
  /** The replica cannot be reached or refuses: server away, wrong password, bucket missing, folder unreadable. */
  | 'REPLICA'
  /** Another writer put something where ours should go. */
  | 'CONFLICT'
  /** The replica holds nothing that answers the request: no snapshot, no such TXID or moment, a hole in the chain. */
  | 'NOT_FOUND'
  /** The output path exists or cannot be written. */
  | 'OUTPUT'
  /** A restored or compared database is damaged or differs. */
  | 'VERIFY'
  /** The caller's AbortSignal fired. */
  | 'ABORTED';

export interface ErrorDetails {
  /** What the user can do about it, one sentence. */
  readonly hint?: string;
  readonly cause?: unknown;
  /** See JetliteError. */
  readonly away?: boolean;
}

export class JetliteError extends Error {
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  /**
   * True where nobody answered (server down, network gone): the same may succeed later without anybody changing
   * anything but that. False where something was refused: a password, a permission, a bucket that is not there.
   */
  readonly away: boolean;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = 'JetliteError';
    this.code = code;
    this.hint = details.hint;
    this.away = details.away === true;
  }
}

/** A file that is not what it claims to be. `where` names the place: "frame 12", "page 7", "the trailer". */
export class FormatError extends JetliteError {
  readonly where: string;

  constructor(where: string, message: string, details: ErrorDetails = {}) {
    super('FORMAT', `${where}: ${message}`, details);
    this.name = 'FormatError';
    this.where = where;
  }
}

/** Another writer's file stands where ours should go; this writer stops and touches nothing. */
export class ConflictError extends JetliteError {
  constructor(message: string, details: ErrorDetails = {}) {
    super('CONFLICT', message, details);
    this.name = 'ConflictError';
  }
}

/** The lease under which something was to be written or removed is somebody else's by now, or nobody's. */
export class LeaseLostError extends ConflictError {
  constructor(message: string, details: ErrorDetails = {}) {
    super(message, details);
    this.name = 'LeaseLostError';
  }
}

/** The way to the replica was given up for good, as the user wished after so many tries: only a new start helps. */
export class GivenUpError extends JetliteError {
  constructor(message: string, details: ErrorDetails = {}) {
    super('REPLICA', message, details);
    this.name = 'GivenUpError';
  }
}

/** Throws JetliteError ABORTED if the signal has fired. `what` was being done: "the restore". */
export function throwIfAborted(signal: AbortSignal | undefined, what: string): void {
  if (signal?.aborted) throw new JetliteError('ABORTED', `${what} was interrupted`, { cause: signal.reason });
}

/** True if nothing stands at the path. */
export function isMissing(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'ENOENT';
}
