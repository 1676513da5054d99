/**
 * The page sums of a chain's newest state, read from its files as restore reads them: what restore refuses is not gone on
 * with, and what it accepts is.
 *
 * 1. A file that cannot be read soundly, all by itself, is gone around where others lead to the same state.
 * 2. Each file is held against the state before it (StateCheck). Where files contradict each other, nobody knows which of
 *    them is right, and restore does not go around them: such a chain is broken.
 * 3. Only the way from nothing, the cheapest one, is restore's own. A contradiction on the way from a state whose sums were
 *    kept says no more than that this way is to be taken instead.
 */

import type { PageSums } from '../../capture/page-sums.js';
import { FormatError, JetliteError, throwIfAborted } from '../../errors.js';
import { decodeLtx } from '../../ltx/decoder.js';
import { ltxPath } from '../../replica/names.js';
import type { LtxFileInfo, Replica } from '../../replica/replica.js';
import { planRestore, type RestorePlan } from '../plan.js';
import { StateCheck } from '../rebuild/state-check.js';

/** What the files lead to is not what the replica once had, or nothing at all. */
export class BrokenChain extends JetliteError {
  constructor(message: string, cause?: unknown) {
    super('NOT_FOUND', message, { cause });
  }
}

export interface SumsTarget {
  /** Of the database. */
  readonly pageSize: number;
  readonly sums: PageSums;
}

export interface RecordOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: (progress: { readonly bytes: number; readonly totalBytes: number }) => void;
}

/**
 * Records the newest state by whatever files lead there undamaged. `have` is the state that the sums describe.
 * @throws BrokenChain if none do or they contradict each other; JetliteError NOT_FOUND if a file is gone, DATABASE if the
 * chain has another page size
 */
export async function recordSound(
  replica: Replica,
  files: readonly LtxFileInfo[],
  have: bigint,
  target: SumsTarget,
  options: RecordOptions,
): Promise<void> {
  const { pageSize, sums } = target;
  let usable = files;
  let from = have;
  let damage: DamagedFile | undefined;
  for (;;) {
    let plan: RestorePlan;
    try {
      plan = planRestore(usable, { kind: 'newest' }, from);
      if (plan.txid < highestOf(files)) throw new BrokenChain('the newest file is damaged');
    } catch (error) {
      if (!(error instanceof JetliteError && error.code === 'NOT_FOUND')) throw error;
      if (from === 0n) throw new BrokenChain(damage?.message ?? error.message, error);
      from = 0n;
      sums.clear();
      continue;
    }
    const check = new StateCheck(from === 0n ? undefined : { pageCount: sums.pageCount, pageSize });
    try {
      return await recordPlan(replica, plan, check, target, options);
    } catch (error) {
      if (error instanceof DamagedFile) {
        damage = error;
        usable = usable.filter((other) => other !== error.file);
      } else if (!(error instanceof Contradiction)) throw error;
      else if (from === 0n) {
        sums.clear();
        throw new BrokenChain(error.message, error);
      }
      from = 0n;
      sums.clear();
    }
  }
}

/** Records the content of one file, which follows the state that the sums describe, as this process put it there. */
export async function recordContent(
  name: string,
  content: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  where: string,
  { pageSize, sums }: SumsTarget,
): Promise<void> {
  const { header } = await decodeLtx(name, content, {
    header: (header) => {
      expectPageSize(header.pageSize, pageSize, where);
      if (header.commit < sums.pageCount) sums.pageCount = header.commit;
    },
    page: (pgno, page) => sums.record(pgno, page, 0, pageSize),
  });
  sums.pageCount = header.commit;
}

class DamagedFile extends Error {
  constructor(
    readonly file: LtxFileInfo,
    damage: FormatError,
  ) {
    super(damage.message, { cause: damage });
  }
}

/** A file that is sound by itself cannot follow the state before it. */
class Contradiction extends Error {
  constructor(found: FormatError) {
    super(found.message, { cause: found });
  }
}

function highestOf(files: readonly LtxFileInfo[]): bigint {
  return files.reduce((highest, { maxTxid }) => (maxTxid > highest ? maxTxid : highest), 0n);
}

async function recordPlan(
  replica: Replica,
  plan: RestorePlan,
  check: StateCheck,
  target: SumsTarget,
  options: RecordOptions,
): Promise<void> {
  let bytes = 0;
  for (const file of plan.files) {
    throwIfAborted(options.signal, 'reading the replica');
    await recordFile(replica, file, check, target).catch((error: unknown) => {
      throw error instanceof FormatError ? new DamagedFile(file, error) : error;
    });
    bytes += file.size;
    options.onProgress?.({ bytes, totalBytes: plan.bytes });
  }
}

/** Throws Contradiction only for a file that was read soundly to its end, else FormatError. */
async function recordFile(
  replica: Replica,
  file: LtxFileInfo,
  check: StateCheck,
  { pageSize, sums }: SumsTarget,
): Promise<void> {
  const first = new FirstRefusal();
  const { header } = await decodeLtx(ltxPath(file), replica.read(file), {
    header: (header) => {
      if (!first.passes(() => check.begin(file, header))) return;
      expectPageSize(header.pageSize, pageSize, replica.url);
      if (header.commit < sums.pageCount) sums.pageCount = header.commit;
    },
    page: (pgno, page) => {
      if (first.passes(() => check.page(pgno, page))) sums.record(pgno, page, 0, pageSize);
    },
  });
  if (first.passes(() => check.end())) sums.pageCount = header.commit;
  const { error } = first;
  if (error === undefined) return;
  const isNamed = header.minTxid === file.minTxid && header.maxTxid === file.maxTxid;
  throw isNamed ? new Contradiction(error) : error;
}

/** Keeps the first refusal, after which nothing is asked any more: the file may yet turn out to be damaged. */
class FirstRefusal {
  error: FormatError | undefined;

  passes(check: () => void): boolean {
    if (this.error !== undefined) return false;
    try {
      check();
      return true;
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      this.error = error;
      return false;
    }
  }
}

function expectPageSize(found: number, pageSize: number, where: string): void {
  if (found === pageSize) return;
  throw new JetliteError(
    'DATABASE',
    `the database has pages of ${pageSize} bytes, the chain in ${where} pages of ${found}`,
    { hint: 'A chain of LTX files has one page size: use a new replica path for this database.' },
  );
}
