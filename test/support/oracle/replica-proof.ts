/** Proof that every state a replica can be restored to is one that the oracle writer committed. */
import assert from 'node:assert/strict';
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { restore } from '../../../lib/jobs/restore.js';
import { decodeLtx } from '../../../lib/ltx/decoder.js';
import { formatTxid, ltxFileName } from '../../../lib/ltx/header.js';
import { openReplica } from '../../../lib/replica/open.js';
import type { LtxFileInfo, Replica } from '../../../lib/replica/replica.js';
import { firstDifference, OracleChecker } from './check.js';
import type { CommittedState, Ledger } from './ledger.js';

export interface ReplicaProof {
  /** How many TXIDs the replica can be restored to, and how many of them were proven. */
  readonly txids: number;
  readonly proven: number;
  /** The states proven, ascending in TXID. */
  readonly states: readonly CommittedState[];
}

export interface ProofOptions {
  readonly replica: string;
  /** The source: its writer has stopped, everything is checkpointed. */
  readonly database: string;
  /** Where restored files go meanwhile. */
  readonly folder: string;
  /** The commits of the writer; without it, the restored copies alone must prove themselves. */
  readonly ledger?: Ledger;
  /** At most about this many TXIDs are proven, the first and the last among them. Default: 100; with JETLITE_LONG=1 all. */
  readonly limit?: number;
}

/** So many of the proven states are restored as well, from nothing, and must be what the chain led to. */
const RESTORES = 5;

/**
 * 1. The newest state, restored, equals the source byte for byte.
 * 2. Every TXID's state is a committed one, the ledger knows it with this digest, and seq never decreases.
 * The states come from laying the files of level 0 over each other, one pass for all. `restore`, which finds its own
 * way through the replica, must give the same bytes.
 */
export async function proveReplica(options: ProofOptions): Promise<ReplicaProof> {
  const replica = await openReplica(options.replica);
  const checker = new OracleChecker();
  try {
    return await proveStates(replica, checker, options);
  } finally {
    await checker.close();
    await replica.close();
  }
}

async function proveStates(
  replica: Replica,
  checker: OracleChecker,
  options: ProofOptions,
): Promise<ReplicaProof> {
  const { database, folder, ledger } = options;
  const output = join(folder, 'restored.db');
  await restore({ replica, output, force: true });
  assert.equal(await firstDifference(database, output), undefined, 'newest state and source');

  const chain = await replica.list(0);
  const limit = options.limit ?? (process.env.JETLITE_LONG === '1' ? chain.length : 100);
  const wanted = sample(chain.length, limit);
  const restored = sample(chain.length, Math.min(limit, RESTORES));
  const states: CommittedState[] = [];
  const laid = join(folder, 'laid.db');
  const fd = openSync(laid, 'w+');
  try {
    for (const [index, info] of chain.entries()) {
      const txid = BigInt(index + 1);
      const where = `TXID ${formatTxid(txid)}`;
      assert.deepEqual([info.minTxid, info.maxTxid], [txid, txid], 'level 0 is one file a TXID, from 1 on');
      await layOver(fd, replica, info);
      if (wanted(index)) states.push(await proveState(checker, laid, where, states.at(-1), ledger));
      if (!restored(index)) continue;
      await restore({ replica, output, txid, force: true });
      assert.equal(await firstDifference(laid, output), undefined, `${where}, laid and restored`);
    }
  } finally {
    closeSync(fd);
  }
  return { txids: chain.length, proven: states.length, states };
}

async function proveState(
  checker: OracleChecker,
  database: string,
  where: string,
  previous: CommittedState | undefined,
  ledger: Ledger | undefined,
): Promise<CommittedState> {
  const { seq, digest } = await checker.prove(database).catch((error: Error) => {
    throw new Error(`${where}: ${error.message}`);
  });
  if (ledger) assert.equal(digest, ledger.digestOf(seq), `${where}, which stands at commit ${seq}`);
  if (previous) assert.ok(seq >= previous.seq, `${where} stands at commit ${seq}, before ${previous.seq}`);
  return { seq, digest };
}

async function layOver(fd: number, replica: Replica, info: LtxFileInfo): Promise<void> {
  const name = ltxFileName(info.minTxid, info.maxTxid);
  const { header } = await decodeLtx(name, replica.read(info), {
    page: (pgno, page) => void writeSync(fd, page, 0, page.length, (pgno - 1) * page.length),
  });
  ftruncateSync(fd, header.commit * header.pageSize);
}

/** Whether an index is one of about `limit` that are spread over `length`; the first and the last are. */
function sample(length: number, limit: number): (index: number) => boolean {
  const step = Math.max(1, Math.ceil(length / limit));
  return (index) => index % step === 0 || index === length - 1;
}
