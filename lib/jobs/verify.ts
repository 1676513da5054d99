/**
 * Verify: proof that a replica restores. A state is rebuilt into a temporary file, every page and checksum on the way,
 * and SQLite itself looks at the result.
 *
 * What is wrong with the replica or the database is a finding in the result; what keeps the work from being done (a
 * server that is away, a state that was never there) is thrown.
 */

import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { JetliteError, throwIfAborted } from '../errors.js';
import type { LtxFileInfo, Replica } from '../replica/replica.js';
import { orAborted } from '../until-aborted.js';
import { compareWithLive } from './check/compare.js';
import { inScratchFolder } from './check/scratch-folder.js';
import { type CheckResult, checkDatabase } from './check/sqlite-check.js';
import { planRestore, type RestorePlan, type RestoreWish, wishOf } from './plan.js';
import { outputError } from './rebuild/output.js';
import { type OnProgress, type Rebuilt, rebuildDatabase } from './rebuild/rebuild.js';

export interface VerifyOptions {
  readonly replica: Replica;
  /** Exactly this state. Without it and `timestampMs`: the newest. */
  readonly txid?: bigint | undefined;
  /** The last state at or before this moment, milliseconds since the epoch. */
  readonly timestampMs?: number | undefined;
  /** Queries and what each must answer: rows as lines, columns joined with `|`. */
  readonly queries?: readonly { readonly sql: string; readonly expect: string }[] | undefined;
  /** Path of a live, quiet database that must have the same pages. */
  readonly against?: string | undefined;
  /** The newest state must not be older than this, milliseconds. */
  readonly maxAgeMs?: number | undefined;
  /** Small files fetched at a time; default 8. */
  readonly parallelism?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

export interface Finding {
  /**
   * `replica`: its files do not lead to the state, or one that would is damaged and others lead around it (there is a state
   * then). The others: what was asked of the restored database.
   */
  readonly check: 'replica' | 'integrity' | 'query' | 'against' | 'age';
  readonly message: string;
}

export interface VerifyResult {
  /** Whether there are no findings. */
  readonly sound: boolean;
  readonly findings: readonly Finding[];
  /** What was rebuilt; undefined if it could not be. */
  readonly state: Rebuilt | undefined;
  /** Of the SQLite that looked at it. */
  readonly sqliteVersion: string | undefined;
  readonly durationMs: number;
}

/**
 * Throws JetliteError NOT_FOUND (no such state, or the replica is empty), REPLICA, OUTPUT (no room for the temporary
 * file), NO_DATABASE or DATABASE (`against` cannot be read), ABORTED.
 */
export async function verify(options: VerifyOptions): Promise<VerifyResult> {
  const startMs = performance.now();
  const wish = wishOf(options);
  if (options.maxAgeMs !== undefined && wish.kind !== 'newest') {
    throw new JetliteError(
      'USAGE',
      'the age that is checked is the newest state’s: leave out TXID and timestamp',
    );
  }
  throwIfAborted(options.signal, 'the verification');
  const files = await orAborted(options.replica.list(), options.signal, 'the verification');
  const looked = await inScratchFolder((folder) => look(options, files, wish, folder));
  const { findings, state, sqliteVersion } = looked;
  const durationMs = performance.now() - startMs;
  return { sound: findings.length === 0, findings, state, sqliteVersion, durationMs };
}

type Looked = Pick<VerifyResult, 'findings' | 'state' | 'sqliteVersion'>;

async function look(
  options: VerifyOptions,
  files: readonly LtxFileInfo[],
  wish: RestoreWish,
  folder: string,
): Promise<Looked> {
  const path = join(folder, 'restored.db');
  const file = await open(path, 'wx+', 0o600);
  try {
    const state = await rebuild(options, files, wish, file, path);
    if ('check' in state) return { findings: [state], state: undefined, sqliteVersion: undefined };
    const age = ageFinding(state, options.maxAgeMs);
    const { queries = [], signal } = options;
    const checked = await checkDatabase({
      path,
      mode: 'full',
      queries: queries.map(({ sql }) => sql),
      signal,
    });
    const against = await againstFinding(options, state, file, folder);
    const damaged = state.damaged.map(replicaFinding);
    const findings = [...damaged, age, ...sqliteFindings(checked, queries), against].filter(
      (found) => found !== undefined,
    );
    return { findings, state, sqliteVersion: checked.version };
  } finally {
    await file.close();
  }
}

/** The state in the file, or why the replica does not lead to it. */
async function rebuild(
  options: VerifyOptions,
  files: readonly LtxFileInfo[],
  wish: RestoreWish,
  file: FileHandle,
  path: string,
): Promise<Rebuilt | Finding> {
  const { replica, parallelism, signal, onProgress } = options;
  let plan: RestorePlan;
  try {
    plan = planRestore(files, wish);
  } catch (error) {
    // A wish that cannot be met is the caller's; files that do not lead to their own newest state are the replica's.
    if (wish.kind === 'newest' && files.length > 0 && error instanceof JetliteError)
      return replicaFinding(error);
    throw error;
  }
  try {
    return await rebuildDatabase({ replica, wish, plan, file, parallelism, signal, onProgress });
  } catch (error) {
    if (error instanceof JetliteError && error.code === 'FORMAT') return replicaFinding(error);
    throw outputError(error, path);
  }
}

function replicaFinding({ message }: { readonly message: string }): Finding {
  return { check: 'replica', message };
}

function ageFinding(state: Rebuilt, maxAgeMs: number | undefined): Finding | undefined {
  const ageMs = Date.now() - state.timestampMs;
  if (maxAgeMs === undefined || ageMs <= maxAgeMs) return undefined;
  const seconds = (ms: number): string => `${(ms / 1000).toFixed(ms < 10_000 ? 3 : 0)} s`;
  return {
    check: 'age',
    message: `the newest state is ${seconds(ageMs)} old, at most ${seconds(maxAgeMs)} expected`,
  };
}

function sqliteFindings(checked: CheckResult, queries: NonNullable<VerifyOptions['queries']>): Finding[] {
  const findings: Finding[] = checked.findings.map((message) => ({ check: 'integrity', message }));
  for (const [i, answer] of checked.answers.entries()) {
    const { sql, expect } = queries[i];
    if ('error' in answer) findings.push({ check: 'query', message: `${sql}: ${answer.error}` });
    else if (answer.text !== expect) {
      findings.push({ check: 'query', message: `${sql}: expected "${expect}", found "${answer.text}"` });
    }
  }
  return findings;
}

async function againstFinding(
  options: VerifyOptions,
  state: Rebuilt,
  restored: FileHandle,
  scratchDir: string,
): Promise<Finding | undefined> {
  const { against: live, signal } = options;
  if (live === undefined) return undefined;
  const { pageSize, pageCount } = state;
  const message = await compareWithLive({ restored, pageSize, pageCount, live, scratchDir, signal });
  return message === undefined ? undefined : { check: 'against', message };
}
