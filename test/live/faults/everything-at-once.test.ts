/**
 * A writer, a replicator that merges and removes files every second, a live copy, a server: all of them are killed,
 * stopped for a while and rolled back in random order. After each round the replica offers nothing but committed states.
 */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { restore } from '../../../lib/jobs/restore.js';
import type { UpkeepSettings } from '../../../lib/jobs/tidy/tidy.js';
import type { Replica } from '../../../lib/replica/replica.js';
import { CaptureStage, LONG } from '../../support/capture-stage.js';
import { FollowRun } from '../../support/follow-run.js';
import { makeBucket, openBucketReplica } from '../../support/nats-replica.js';
import { type NatsServer, startNatsServer } from '../../support/nats-server.js';
import { copyStore } from '../../support/nats-store.js';
import { firstDifference, OracleChecker } from '../../support/oracle/check.js';
import { proveOffer } from '../../support/oracle/offered-states.js';
import type { OracleWriter } from '../../support/oracle/writer.js';
import { type Random, randomSource } from '../../support/random.js';
import type { Replication } from '../../support/replication.js';

const ROUNDS = LONG ? 60 : 4;
const FAULTS_A_ROUND = 3;
const LIMIT = { timeout: LONG ? 1_800_000 : 180_000 };
const NATS = { reconnectWaitMs: 50, timeoutMs: 500 };
const LEVELS: UpkeepSettings = {
  levelIntervalsMs: [700, 2000, 6000],
  snapshotIntervalMs: 4000,
  snapshotRetentionMs: 12_000,
  level0RetentionMs: 3000,
};
const WORK = {
  rows: [50, 400],
  rate: 60,
  autocheckpoint: 60,
  checkpointEvery: 90,
  checkpointModes: ['PASSIVE', 'RESTART', 'TRUNCATE'],
  vacuumEvery: 700,
  reopenEverySeconds: 5,
} as const;

class Scene {
  readonly told = new Map<string, number>();
  replication!: Replication;
  /** Puts the server's store back to what it was at some time. */
  #putBack: (() => Promise<void>) | undefined;

  constructor(
    readonly t: TestContext,
    readonly stage: CaptureStage,
    readonly server: NatsServer,
    readonly writer: OracleWriter,
    readonly random: Random,
  ) {}

  async replicate(): Promise<void> {
    const replica = `${this.server.url}/backups/app`;
    this.replication = await this.stage.replicate({
      replica,
      levels: LEVELS,
      nats: NATS,
      auditIntervalMs: 1000,
    });
  }

  /** Told what its events were. */
  count(): void {
    for (const { type } of this.replication.events) this.told.set(type, (this.told.get(type) ?? 0) + 1);
  }

  async killReplicator(): Promise<void> {
    await this.replication.kill();
    this.count();
  }

  pause(most: number): Promise<void> {
    return delay(this.random.below(most));
  }

  readonly faults: Record<string, () => Promise<void>> = {
    'server killed': async () => {
      await this.server.kill();
      await this.pause(1500);
      await this.server.restart();
    },
    'server restarted': async () => {
      await this.server.stop();
      await this.server.restart();
    },
    'server stalled': async () => {
      this.server.pause();
      await this.pause(2000);
      this.server.resume();
    },
    'store kept': async () => {
      await this.server.kill();
      this.#putBack = await copyStore(this.server);
      await this.server.restart();
    },
    'store rolled back': async () => {
      await this.server.kill();
      await this.#putBack?.();
      await this.server.restart();
    },
    'replicator killed': async () => {
      await this.killReplicator();
      await this.pause(300);
      await this.replicate();
    },
    'replicator stalled': async () => {
      this.replication.signal('SIGSTOP');
      await this.pause(1500);
      this.replication.signal('SIGCONT');
    },
    'replicator killed while the server is away': async () => {
      await this.server.kill();
      await this.pause(400);
      await this.killReplicator();
      await this.replicate();
      await this.pause(400);
      await this.server.restart();
    },
    'store rolled back while nobody replicates': async () => {
      await this.killReplicator();
      await this.server.kill();
      await this.#putBack?.();
      await this.server.restart();
      await this.replicate();
    },
  };
}

/** Waits until everything committed so far is in the replica, and nothing that it once acknowledged is missing there. */
async function becomesWhole(scene: Scene, replica: Replica, checker: OracleChecker): Promise<void> {
  const { seq } = await scene.writer.pause();
  const output = join(scene.stage.folder, 'whole.db');
  let why: unknown;
  let isOver = false;
  const over = scene.replication.ended.then(async () => {
    isOver = true;
    await scene.replication.result();
    throw new Error('replicate ended');
  });
  over.catch(() => {});
  const wholeness = async (): Promise<void> => {
    for (; !isOver; await delay(100)) {
      try {
        why = (await replica.audit!()).flaws[0];
        if (why !== undefined) continue;
        await restore({ replica, output, force: true });
        const found = await checker.prove(output);
        if (found.seq === seq) return;
        why = `found commit ${found.seq}`;
      } catch (error) {
        why = error;
      }
    }
  };
  const told = setInterval(() => scene.t.diagnostic(`not whole at commit ${seq}: ${why}`), 10_000);
  await Promise.race([wholeness(), over]).finally(() => clearInterval(told));
  await scene.writer.resume();
}

async function open(t: TestContext): Promise<Scene | undefined> {
  const stage = await CaptureStage.open(t);
  const server = stage && (await startNatsServer(t, { jetstream: 'sync_interval: always' }));
  if (stage === undefined || server === undefined) return undefined;
  await makeBucket(server);
  const random = randomSource(t);
  const writer = await stage.writer({ ...WORK, seed: random.below(1e6) });
  return new Scene(t, stage, server, writer, random);
}

test(
  'whatever fails in whatever order, what is offered is right and the newest state comes back',
  LIMIT,
  async (t) => {
    const scene = await open(t);
    if (scene === undefined) return;
    const { stage, server, writer, random } = scene;
    await scene.replicate();
    await scene.replication.firstPut();
    const replica = await openBucketReplica(t, server, 'backups/app', { nats: NATS });
    const copy = join(stage.folder, 'copy.db');
    const follower = new FollowRun(t, {
      replica: await openBucketReplica(t, server, 'backups/app', { nats: NATS }),
      output: copy,
    });
    const checker = new OracleChecker();
    t.after(() => checker.close());
    const names = Object.keys(scene.faults);
    let proven = 0;
    for (let round = 0; round < ROUNDS; round++) {
      for (let fault = 0; fault < FAULTS_A_ROUND; fault++) {
        const name = random.pick(names);
        t.diagnostic(`${round}: ${name}`);
        await scene.faults[name]!();
        await scene.pause(1000);
      }
      await becomesWhole(scene, replica, checker);
      const ledger = () => stage.ledger();
      proven += (
        await proveOffer({ replica, checker, folder: stage.folder, ledger, random, moving: true, limit: 5 })
      ).proven;
    }
    const { seq, commits } = await writer.stop();
    await scene.replication.stop();
    scene.count();
    const output = join(stage.folder, 'newest.db');
    await restore({ replica, output, force: true });
    assert.equal(await firstDifference(stage.database, output), undefined);
    while ((await checker.prove(copy)).seq !== seq) await delay(20);
    await follower.stop();
    t.diagnostic(`${commits} commits, ${proven} states proven, ${JSON.stringify([...scene.told])}`);
  },
);
