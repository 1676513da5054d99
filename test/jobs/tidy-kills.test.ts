import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { reachableStates } from '../../lib/jobs/plan.js';
import type { Replica } from '../../lib/replica/replica.js';
import { startJetlite } from '../cli/run.js';
import { inEveryHome } from '../support/homes.js';
import { assertLevelRules, restoredBytes } from '../support/level-rules.js';
import { databaseBytes, type History, makeHistory, putLtx } from '../support/ltx-history.js';
import { randomSource } from '../support/random.js';
import { scratchFolder } from '../support/scratch.js';

const STATES = 40;
const KILLS = process.env.JETLITE_LONG === '1' ? 30 : 2;

async function names(replica: Replica): Promise<Set<string>> {
  const files = await replica.list();
  return new Set(files.map(({ level, minTxid, maxTxid }) => `${level}:${minTxid}-${maxTxid}`));
}

/** How many files were made or removed. */
function changes(before: Set<string>, after: Set<string>): number {
  const made = [...after].filter((name) => !before.has(name)).length;
  return made + [...before].filter((name) => !after.has(name)).length;
}

async function assertSound(replica: Replica, history: History): Promise<void> {
  const files = await replica.list();
  assertLevelRules(files);
  const states = reachableStates(files);
  assert.equal(states[states.length - 1].txid, BigInt(STATES));
  for (const { txid } of states) {
    const { bytes } = await restoredBytes(replica, files, { kind: 'txid', txid });
    assert.ok(bytes.equals(databaseBytes(history, Number(txid))), `TXID ${txid}`);
  }
}

inEveryHome(
  'killed with -9 again and again, a compact leaves every state whole and is finished by the next',
  async (open, t) => {
    const random = randomSource(t);
    const history = makeHistory(STATES, 512, 12, (below) => random.below(below));
    const replica = await open();
    for (let txid = 1; txid <= STATES; txid++) await putLtx(replica, history, 0, txid, txid);
    const config = join(await scratchFolder(t), 'jetlite.yml');
    await writeFile(config, 'levels: [{interval: 2s}, {interval: 10s}]\ndbs: []\n');
    const start = () => startJetlite(['compact', replica.url, '--retain', '--config', config]);
    for (let kill = 0; kill < KILLS; kill++) {
      const before = await names(replica);
      const wanted = 1 + random.below(20);
      const running = start();
      let over = false;
      void running.ended.then(() => {
        over = true;
      });
      while (!over && changes(before, await names(replica)) < wanted) await delay(1);
      running.child.kill('SIGKILL');
      await running.ended;
      await assertSound(replica, history);
      // As when it has expired.
      await replica.removeExtra('lease');
    }
    const last = await start().ended;
    assert.equal(last.exitCode, 0, last.stderr);
    await assertSound(replica, history);
    const files = await replica.list();
    assert.equal(files.filter(({ level }) => level === 0).length, 1);
    assert.ok(files.some(({ level }) => level === 2));
  },
);
