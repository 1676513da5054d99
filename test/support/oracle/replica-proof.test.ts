/** The proof of a replica must be able to fail: chains made wrong on purpose. */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { LtxEncoder } from '../../../lib/ltx/encoder.js';
import { LTX_FLAG_NO_CHECKSUM } from '../../../lib/ltx/header.js';
import { openReplica } from '../../../lib/replica/open.js';
import { peer } from '../peers.js';
import { scratchFolder } from '../scratch.js';
import { Ledger } from './ledger.js';
import { proveReplica } from './replica-proof.js';
import { OracleWriter } from './writer.js';

const PAGE_SIZE = 4096;

interface Made {
  readonly folder: string;
  readonly ledger: Ledger;
  /** Images of four committed states, oldest first. */
  readonly states: readonly Buffer[];
}

async function makeStates(t: TestContext): Promise<Made | undefined> {
  if (!peer(t, 'python3')) return undefined;
  const folder = await scratchFolder(t);
  const database = join(folder, 'writer.db');
  const ledger = join(folder, 'ledger');
  const writer = await OracleWriter.start(database, { paused: true, ledger, rows: [300, 3000] });
  const states: Buffer[] = [];
  for (let round = 0; round < 4; round++) {
    await writer.command('step 60');
    await writer.checkpoint('TRUNCATE');
    states.push(await readFile(database));
  }
  await writer.stop();
  return { folder, ledger: new Ledger(ledger), states };
}

/** A chain that goes from state to state, and the source at the last of them. `lost` names pages that are left out. */
async function makeChain(
  { folder, ledger }: Made,
  states: readonly Buffer[],
  lost: { txid: number; change: number } = { txid: 0, change: 0 },
): Promise<Parameters<typeof proveReplica>[0]> {
  const address = join(folder, 'replica');
  const replica = await openReplica(address);
  for (const [index, state] of states.entries()) {
    const txid = BigInt(index + 1);
    const before = states[index - 1] ?? Buffer.alloc(0);
    const encoder = new LtxEncoder({
      flags: LTX_FLAG_NO_CHECKSUM,
      pageSize: PAGE_SIZE,
      commit: state.length / PAGE_SIZE,
      minTxid: txid,
      maxTxid: txid,
      timestampMs: Date.now(),
      preApplyChecksum: 0n,
      walOffset: 32,
      walSize: 0,
      walSalt1: 0,
      walSalt2: 0,
      nodeId: 0n,
    });
    let change = 0;
    for (let offset = 0; offset < state.length; offset += PAGE_SIZE) {
      const page = state.subarray(offset, offset + PAGE_SIZE);
      if (page.equals(before.subarray(offset, offset + PAGE_SIZE))) continue;
      change++;
      if (lost.txid === index + 1 && lost.change === change) continue;
      encoder.writePage(offset / PAGE_SIZE + 1, page);
    }
    const blocks: Uint8Array[] = [];
    for (let block = encoder.take(); block !== undefined; block = encoder.take()) blocks.push(block);
    blocks.push(encoder.finish());
    const target = { level: 0, minTxid: txid, maxTxid: txid, timestampMs: Date.now() };
    await replica.write(target, () => blocks);
  }
  await replica.close();
  const database = join(folder, 'source.db');
  await writeFile(database, states.at(-1)!);
  return { replica: address, database, folder, ledger };
}

test('a chain of committed states is proven, every one of them', async (t) => {
  const made = await makeStates(t);
  if (!made) return;
  const proof = await proveReplica(await makeChain(made, made.states));
  assert.equal(proof.proven, 4);
  assert.deepEqual(
    proof.states.map(({ seq }) => seq),
    [61, 121, 181, 241],
  );
});

test('a page missing in the middle of a chain is found, though the newest state is right', async (t) => {
  const made = await makeStates(t);
  if (!made) return;
  // What TXID 2 loses stays lost until TXID 3 writes the page again: find a page that both change.
  const [first, second, third] = made.states as [Buffer, Buffer, Buffer];
  let change = 0;
  for (let offset = 0; offset < second.length; offset += PAGE_SIZE) {
    const page = (state: Buffer): Buffer => state.subarray(offset, offset + PAGE_SIZE);
    if (page(second).equals(page(first))) continue;
    change++;
    if (offset > 0 && !page(third).equals(page(second))) break;
  }
  await assert.rejects(
    proveReplica(await makeChain(made, made.states, { txid: 2, change })),
    /is no committed state/,
  );
});

test('a newest state that is not the source, or older than its TXID says, is found', async (t) => {
  const made = await makeStates(t);
  if (!made) return;
  const [first, second, third, fourth] = made.states as [Buffer, Buffer, Buffer, Buffer];
  const options = await makeChain(made, [first, third, second]);
  await assert.rejects(proveReplica(options), /stands at commit 121, before 181/);
  await writeFile(options.database, fourth);
  await assert.rejects(proveReplica(options), /newest state and source/);
});

test('a state that the writer did not have acknowledged is found', async (t) => {
  const made = await makeStates(t);
  if (!made) return;
  const options = await makeChain(made, made.states);
  const short = join(made.folder, 'short');
  await writeFile(short, (await readFile(join(made.folder, 'ledger'))).subarray(0, 24 * 130));
  await assert.rejects(proveReplica({ ...options, ledger: new Ledger(short) }), /which stands at commit 181/);
});
