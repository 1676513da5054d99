/**
 * Damaged files of a replica, and ways around them.
 *
 * 1. Damaged is a file that cannot be read soundly to its end, all by itself. Files that are sound and contradict each
 *    other are something else: nobody can tell which of them is right, so there is no way around those.
 * 2. Which state is wished for is decided by all files, the damaged ones too: a way around leads to that very state.
 * 3. A file is known by its version: put again, it is another one.
 */

import { FormatError, JetliteError } from '../../errors.js';
import { decodeLtx } from '../../ltx/decoder.js';
import { ltxPath, versionKey } from '../../replica/names.js';
import type { LtxFileInfo, Replica } from '../../replica/replica.js';
import { planRestore, type RestorePlan, type RestoreWish } from '../plan.js';

export interface DamagedFile {
  readonly file: LtxFileInfo;
  /** Which file, where in it, what was expected and found; and that there was a way around it. */
  readonly message: string;
}

export class Damage {
  readonly #replica: Replica;
  readonly #found = new Map<string, DamagedFile>();
  #error: FormatError | undefined;

  constructor(replica: Replica) {
    this.#replica = replica;
  }

  /** What was found so far; true once a way around was gone to its end. */
  get files(): readonly DamagedFile[] {
    return [...this.#found.values()];
  }

  /**
   * Notes the file that an error of reading `files` names. Undefined if the error is about something else, or the file is
   * sound by itself: then there is nothing to go around. Throws REPLICA.
   */
  async note(error: unknown, files: readonly LtxFileInfo[]): Promise<DamagedFile | undefined> {
    if (!(error instanceof FormatError)) return undefined;
    const file = fileNamedBy(error, files);
    if (file === undefined || this.#found.has(versionKey(file))) return undefined;
    if (await isSound(this.#replica, file)) return undefined;
    const damaged = { file, message: `${error.message}; other files lead to the same state` };
    this.#found.set(versionKey(file), damaged);
    this.#error = error;
    return damaged;
  }

  /**
   * Plans from state `have` to the wished one by files that are not known to be damaged. Throws NOT_FOUND as planRestore
   * does, and the last error that was noted if all ways lead through damaged files.
   */
  plan(files: readonly LtxFileInfo[], wish: RestoreWish, have = 0n): RestorePlan {
    const wished = planRestore(files, wish, have);
    if (this.#error === undefined) return wished;
    const sound = files.filter((file) => !this.#found.has(versionKey(file)));
    try {
      return planRestore(sound, { kind: 'txid', txid: wished.txid }, have);
    } catch (error) {
      throw error instanceof JetliteError && error.code === 'NOT_FOUND' ? this.#error : error;
    }
  }
}

/** The one of `files` that an error is about, by its name. */
export function fileNamedBy(error: FormatError, files: readonly LtxFileInfo[]): LtxFileInfo | undefined {
  return files.find((file) => error.where.includes(ltxPath(file)));
}

/** Whether a file can be read to its end and is what its name says. One that is gone by now is not. */
export async function isSound(replica: Replica, file: LtxFileInfo): Promise<boolean> {
  try {
    const { header } = await decodeLtx(ltxPath(file), replica.read(file), {});
    return header.minTxid === file.minTxid && header.maxTxid === file.maxTxid;
  } catch (error) {
    if (error instanceof JetliteError && (error.code === 'FORMAT' || error.code === 'NOT_FOUND'))
      return false;
    throw error;
  }
}
