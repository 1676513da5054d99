import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { reachableStates } from '../../lib/jobs/plan.js';
import { type LevelSettings, tidy } from '../../lib/jobs/tidy/tidy.js';
import { openReplica } from '../../lib/replica/open.js';
import type { LtxFileInfo } from '../../lib/replica/replica.js';
import { BothPrograms, type HomeName } from '../support/both-programs.js';
import { LONG } from '../support/capture-stage.js';
import { assertLevelRules } from '../support/level-rules.js';
import { OracleChecker } from '../support/oracle/check.js';
import { ledgerWith } from '../support/oracle/ledger.js';
import { type Random, randomSource } from '../support/random.js';

const LEVELS: LevelSettings = {
  levelIntervalsMs: [400, 1200, 3600],
  snapshotIntervalMs: 2500,
  snapshotRetentionMs: 4000,
  level0RetentionMs: 1000,
};
const FREEZES = LONG ? 30 : 2;

/** States spread over what can be restored, the oldest and the newest among them. */
function sample(files: readonly LtxFileInfo[], random: Random): bigint[] {
  const states = reachableStates(files).map(({ txid }) => txid);
  return [states[0], random.pick(states), states[states.length - 1]];
}

async function proveFrozen(both: BothPrograms, checker: OracleChecker, random: Random): Promise<void> {
  const files = await both.filesOfBoth();
  assertLevelRules(files);
  for (const txid of sample(files, random)) {
    const state = await checker.prove(await both.restoreByBoth({ txid }));
    const ledger = await ledgerWith(() => both.stage.ledger(), state.seq);
    assert.equal(state.digest, ledger.digestOf(state.seq), `TXID ${txid} at commit ${state.seq}`);
  }
  // Litestream wants a moment after the state's own, and none after the newest.
  const times = reachableStates(files).map(({ timestampMs }) => timestampMs);
  const moments = times.filter((time, i) => time + 1 < times[i + 1]).map((time) => time + 1);
  await checker.prove(await both.restoreByBoth({ timestampMs: random.pick(moments) }));
  await checker.prove(await both.restoreByBoth());
}

async function live(t: TestContext, home: HomeName): Promise<void> {
  const random = randomSource(t);
  const both = await BothPrograms.open(t, home, { paused: false, rate: 60, vacuumEvery: 150 });
  if (both === undefined) return;
  const checker = new OracleChecker();
  t.after(() => checker.close());
  const replication = await both.stage.replicate({ replica: both.url, levels: LEVELS });
  await replication.firstPut();
  const other = await openReplica(both.url, { env: {} });
  let byOther = 0;
  try {
    for (let freeze = 0; freeze < FREEZES; freeze++) {
      // A cron job elsewhere that does the same.
      for (let rounds = 0; rounds < 3; rounds++) {
        await replication.nextPut();
        const result = await tidy(other, { settings: LEVELS, snapshot: 'none' });
        if (result.kind === 'done') byOther += result.merged.length + result.removed.length;
      }
      await replication.waitFor(({ type }) => type === (freeze === 0 ? 'snapshot' : 'removed'));
      // Stopped at whatever it is doing: what lies in the replica now is what a reader may find.
      replication.signal('SIGSTOP');
      await proveFrozen(both, checker, random);
      replication.signal('SIGCONT');
    }
  } finally {
    await other.close();
  }
  // However long a loaded machine takes to get there. It stays until a snapshot behind it has grown old.
  const known = new Set(replication.events);
  await replication.waitFor(
    (event) => !known.has(event) && event.type === 'merged' && event.file.level === 2,
  );
  await both.writer.stop();
  await replication.stop();
  const files = await both.replica.list();
  const counts = (type: string) => replication.events.filter((event) => event.type === type).length;
  t.diagnostic(
    `${counts('merged')} merges, ${counts('snapshot')} snapshots and ${counts('removed')} removals beside, ${byOther} files by the other`,
  );
  assert.deepEqual(
    replication.events.filter(({ level }) => level === 'warn'),
    [],
  );
  assert.ok(counts('snapshot') > 0, 'no snapshot came from the live database');
  for (const level of [1, 2, 9])
    assert.ok(
      files.some((file) => file.level === level),
      `level ${level}`,
    );
  await proveFrozen(both, checker, random);
  const last = await checker.prove(await both.restoreByBoth());
  assert.equal(last.seq, both.stage.ledger().newest?.seq);
}

test('in a folder, levels, snapshots and retention beside a busy writer: both programs restore every state frozen', (t) =>
  live(t, 'a folder'));
test('in NATS, levels, snapshots and retention beside a busy writer: both programs restore every state frozen', (t) =>
  live(t, 'NATS'));
