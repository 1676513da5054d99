/** What a job says of a loss: which files, why that matters, and what it does about it. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { describeLoss, judge } from '../../../lib/jobs/session/audit.js';
import type { LtxFileInfo } from '../../../lib/replica/replica.js';

const file = (txid: bigint): LtxFileInfo => ({
  level: 0,
  minTxid: txid,
  maxTxid: txid,
  size: 100,
  timestampMs: 0,
});

test('a loss is told in a sentence: what is lost, what the rest leads to, and what is done', () => {
  const told = (left: readonly bigint[], lost: readonly bigint[], acknowledged: bigint) => {
    const flaws = lost.map((txid) => ({ file: file(txid), kind: 'missing' as const, message: 'it is gone' }));
    const judgement = judge({ files: left.map(file), flaws }, acknowledged);
    return describeLoss(judgement.lost, judgement.broken);
  };
  const [one, two] = [
    'ltx/0/0000000000000001-0000000000000001.ltx',
    'ltx/0/0000000000000002-0000000000000002.ltx',
  ];
  const done = 'what is still kept here is put again, or else the whole database';
  const to = (txid: number) => `TXID 000000000000000${txid}`;
  assert.equal(
    told([1n, 3n], [2n], 3n),
    `has lost ${two} (it is gone): its files lead to ${to(1)}, expected ${to(3)}; ${done}`,
  );
  assert.equal(
    told([], [1n, 2n], 2n),
    `has lost 2 files, the first of them ${one} (it is gone): its files lead to no state, expected ${to(2)}; ${done}`,
  );
  assert.equal(told([1n], [], 2n), `has lost files: its files lead to ${to(1)}, expected ${to(2)}; ${done}`);
  assert.match(
    told([1n], [2n], 1n),
    /^has lost ltx.*2\.ltx \(it is gone\); the others lead to the newest state, and what/,
  );
});
