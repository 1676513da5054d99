/** Proof that every state a replica can be restored to is one that the oracle writer committed. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { restore } from '../../../lib/jobs/restore.js';
import { formatTxid } from '../../../lib/ltx/header.js';
import { openReplica } from '../../../lib/replica/open.js';
import type { Replica } from '../../../lib/replica/replica.js';
import { firstDifference, OracleChecker } from './check.js';
import type { CommittedState, Ledger } from './ledger.js';

export interface ReplicaProof {
  /** How many TXIDs the replica can be restored to, and how many of them were restored. */
  readonly txids: number;
  readonly restored: number;
  /** The states restored, ascending in TXID. */
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
  /** At most this many TXIDs are restored, the first and the last among them. Default 20, with JETLITE_LONG=1 all. */
  readonly limit?: number;
}

/**
 * 1. The newest state equals the source, byte for byte.
 * 2. Every restored TXID is a committed state, the ledger knows it with this digest, and seq never decreases.
 */
export async function proveReplica(options: ProofOptions): Promise<ReplicaProof> {
  const replica = await openReplica(options.replica);
  try {
    return await proveStates(replica, options);
  } finally {
    await replica.close();
  }
}

async function proveStates(replica: Replica, options: ProofOptions): Promise<ReplicaProof> {
  const { database, folder, ledger } = options;
  const output = join(folder, 'restored.db');
  await restore({ replica, output, force: true });
  assert.equal(await firstDifference(database, output), undefined, 'newest state and source');

  const txids = await restorableTxids(replica);
  const limit = options.limit ?? (process.env.JETLITE_LONG === '1' ? txids.length : 20);
  const sample = txids.filter(
    (_, index) => index === txids.length - 1 || index % Math.ceil(txids.length / limit) === 0,
  );
  const states: CommittedState[] = [];
  const checker = new OracleChecker();
  try {
    for (const txid of sample) {
      const where = `TXID ${formatTxid(txid)}`;
      await restore({ replica, output, txid, force: true });
      const { seq, digest } = await checker.prove(output);
      if (ledger) assert.equal(digest, ledger.digestOf(seq), `${where}, which stands at commit ${seq}`);
      const previous = states.at(-1);
      if (previous)
        assert.ok(seq >= previous.seq, `${where} stands at commit ${seq}, before ${previous.seq}`);
      states.push({ seq, digest });
    }
  } finally {
    await checker.close();
  }
  return { txids: txids.length, restored: sample.length, states };
}

async function restorableTxids(replica: Replica): Promise<bigint[]> {
  return [...new Set((await replica.list()).map((file) => file.maxTxid))].sort((a, b) => (a < b ? -1 : 1));
}
