/** Restore: a database file from the LTX files of a replica, whole and verified, or nothing. */

import type { FileHandle } from 'node:fs/promises';
import { JetliteError, throwIfAborted } from '../errors.js';
import type { LtxFileInfo, Replica } from '../replica/replica.js';
import { orAborted } from '../until-aborted.js';
import { planRestore, type RestorePlan, type RestoreWish, wishOf } from './plan.js';
import { expectFree, lookAtOutput, OutputFile, type OutputPlace, outputError } from './rebuild/output.js';
import { type OnProgress, type Rebuilt, rebuildDatabase } from './rebuild/rebuild.js';

export interface RestoreOptions {
  readonly replica: Replica;
  /** Path of the database file to make. */
  readonly output: string;
  /** Exactly this state. Without it and `timestampMs`: the newest. */
  readonly txid?: bigint | undefined;
  /** The last state at or before this moment, milliseconds since the epoch. */
  readonly timestampMs?: number | undefined;
  /** Replace what stands at the output, with its `-wal`, `-journal` and `-shm`. */
  readonly force?: boolean | undefined;
  /** Permissions of the database file, such as 0o644, whatever the umask; default: private, 0o600 or stricter. */
  readonly mode?: number | undefined;
  /** Do nothing, successfully, if the output exists. */
  readonly ifDbNotExists?: boolean | undefined;
  /** Do nothing, successfully, if the replica holds no files. */
  readonly ifReplicaExists?: boolean | undefined;
  /** Only make the plan. */
  readonly dryRun?: boolean | undefined;
  /** Small files fetched at a time; default 8. */
  readonly parallelism?: number | undefined;
  /** What SQLite checks before the output appears; default none. */
  readonly integrityCheck?: 'none' | 'quick' | 'full' | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
  /** Called with the finished file before it is synced and gets its name; may change it. */
  readonly prepare?: ((file: FileHandle, rebuilt: Rebuilt) => void) | undefined;
}

export interface Restored extends Rebuilt {
  readonly kind: 'restored';
  readonly output: string;
  /** Leftovers of the database that stood there, removed with it. */
  readonly removed: readonly string[];
  readonly durationMs: number;
}

export type RestoreResult =
  | Restored
  | { readonly kind: 'planned'; readonly output: string; readonly plan: RestorePlan }
  | { readonly kind: 'skipped'; readonly output: string; readonly reason: 'database-exists' | 'no-replica' };

/**
 * Restores a database. Throws JetliteError: OUTPUT (the path is taken or cannot be written), NOT_FOUND (the wished state
 * cannot be had, and which can), FORMAT (a damaged LTX file), VERIFY (the integrity check failed), REPLICA, ABORTED.
 * Whatever it throws, nothing stands at the output that did not before.
 */
export async function restore(options: RestoreOptions): Promise<RestoreResult> {
  const startMs = performance.now();
  const { replica, force = false } = options;
  const wish = wishOf(options);
  const place = await lookAtOutput(options.output);
  const output = place.path;
  if (place.exists && options.ifDbNotExists) return { kind: 'skipped', output, reason: 'database-exists' };
  if (!force) await expectFree(place);
  throwIfAborted(options.signal, 'the restore');
  const files: LtxFileInfo[] = await orAborted(replica.list(), options.signal, 'the restore');
  if (files.length === 0 && options.ifReplicaExists) return { kind: 'skipped', output, reason: 'no-replica' };
  const plan = planRestore(files, wish);
  if (options.dryRun) return { kind: 'planned', output, plan };
  const { rebuilt, removed } = await restoreTo(place, wish, plan, options);
  return { kind: 'restored', output, ...rebuilt, removed, durationMs: performance.now() - startMs };
}

async function restoreTo(
  place: OutputPlace,
  wish: RestoreWish,
  plan: RestorePlan,
  options: RestoreOptions,
): Promise<{ rebuilt: Rebuilt; removed: readonly string[] }> {
  const { replica, signal, onProgress, parallelism, integrityCheck = 'none' } = options;
  const output = await OutputFile.create(place);
  try {
    const { file } = output;
    const rebuilt = await rebuildDatabase({ replica, wish, plan, file, parallelism, signal, onProgress });
    if (integrityCheck !== 'none') await expectIntact(output.temporaryPath, integrityCheck, signal);
    throwIfAborted(signal, 'the restore');
    options.prepare?.(file, rebuilt);
    return { rebuilt, removed: await output.publish(options.force ?? false, options.mode) };
  } catch (error) {
    throw outputError(error, place.path);
  } finally {
    await output.discard();
  }
}

/** Throws VERIFY with what SQLite found. SQLite is loaded only here. */
async function expectIntact(
  path: string,
  mode: 'quick' | 'full',
  signal: AbortSignal | undefined,
): Promise<void> {
  const { checkDatabase } = await import('./check/sqlite-check.js');
  const { findings } = await checkDatabase({ path, mode, signal });
  if (findings.length === 0) return;
  throw new JetliteError('VERIFY', `the restored database is damaged: ${findings[0]}`, {
    hint: `${findings.length} findings in all; nothing was put at the output. Restore an earlier state.`,
  });
}
