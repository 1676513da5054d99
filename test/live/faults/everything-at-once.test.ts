/**
 * A writer, a replicator that merges and removes files every second, a live copy, a server: all of them are killed,
 * stopped for a while and rolled back in random order. After each round the replica offers nothing but committed states.
 */

import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { restore } from '../../../lib/jobs/restore.js';
import type { UpkeepSettings } from '../../../lib/jobs/tidy/tidy.js';
import { openReplica } from '../../../lib/replica/open.js';
import type { Replica } from '../../../lib/replica/replica.js';
import { CaptureStage, LONG } from '../../support/capture-stage.js';
import { FollowRun } from '../../support/follow-run.js';
import { makeBucket, streamLeader } from '../../support/nats-replica.js';
import { type NatsServer, startNatsCluster, startNatsServer } from '../../support/nats-server.js';
import { copyStore } from '../../support/nats-store.js';
import { firstDifference, OracleChecker } from '../../support/oracle/check.js';
import { proveOffer } from '../../support/oracle/offered-states.js';
import type { OracleWriter } from '../../support/oracle/writer.js';
import { type Random, randomSource } from '../../support/random.js';
import type { Replication } from '../../support/replication.js';

const ROUNDS = LONG ? 25 : 3;
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
  /** A store that was rolled back may have taken along what waits nowhere any more. */
  isLossy = false;

  constructor(
    readonly t: TestContext,
    readonly stage: CaptureStage,
    readonly servers: readonly NatsServer[],
    readonly writer: OracleWriter,
    readonly random: Random,
  ) {}

  get replica(): string {
    return `nats://${this.servers.map(({ port }) => `127.0.0.1:${port}`).join(',')}/backups/app`;
  }

  async open(): Promise<Replica> {
    const replica = await openReplica(this.replica, { env: {}, nats: NATS });
    this.t.after(() => replica.close());
    return replica;
  }

  async replicate(): Promise<void> {
    const { replica } = this;
    const options = { replica, levels: LEVELS, nats: NATS, auditIntervalMs: 1000 };
    this.replication = await this.stage.replicate(options);
  }

  /** Takes note of what the replicator told; it tells no more. */
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
}

type Faults = Record<string, () => Promise<void>>;

function faultsOfReplicator(scene: Scene): Faults {
  return {
    'replicator killed': async () => {
      await scene.killReplicator();
      await scene.pause(300);
      await scene.replicate();
    },
    'replicator stalled': async () => {
      scene.replication.signal('SIGSTOP');
      await scene.pause(1500);
      scene.replication.signal('SIGCONT');
    },
  };
}

function faultsOfServer(scene: Scene, server: NatsServer): Faults {
  return {
    'server killed': async () => {
      await server.kill();
      await scene.pause(1500);
      await server.restart();
    },
    'server restarted': async () => {
      await server.stop();
      await server.restart();
    },
    'server stalled': async () => {
      server.pause();
      await scene.pause(2000);
      server.resume();
    },
  };
}

/** A server alone keeps what it has, but its store may be put back to what it was at some time before. */
async function faultsOfOne(scene: Scene): Promise<Faults> {
  const [server] = scene.servers;
  const keep = async (): Promise<() => Promise<void>> => {
    await server.kill();
    const kept = await copyStore(server);
    await server.restart();
    return kept;
  };
  let putBack = await keep();
  const rollBack = async (): Promise<void> => {
    scene.isLossy = true;
    await server.kill();
    await putBack();
    await server.restart();
  };
  return {
    ...faultsOfReplicator(scene),
    ...faultsOfServer(scene, server),
    'store kept': async () => {
      putBack = await keep();
    },
    'store rolled back': rollBack,
    'store rolled back while nobody replicates': async () => {
      await scene.killReplicator();
      await rollBack();
      await scene.replicate();
    },
    'replicator killed while the server is away': async () => {
      await server.kill();
      await scene.pause(400);
      await scene.killReplicator();
      await scene.replicate();
      await scene.pause(400);
      await server.restart();
    },
  };
}

/** Of three servers any may fail, or lose its store, and all of them may be away. */
async function faultsOfThree(scene: Scene): Promise<Faults> {
  const { servers, random } = scene;
  const one = (name: string) => (): Promise<void> => faultsOfServer(scene, random.pick(servers))[name]!();
  return {
    ...faultsOfReplicator(scene),
    'server killed': one('server killed'),
    'server restarted': one('server restarted'),
    'server stalled': one('server stalled'),
    'leader killed': async () => {
      const leader = servers[await streamLeader(servers)];
      await leader.kill();
      await scene.pause(1500);
      await leader.restart();
    },
    'store lost': async () => {
      // The two others must have everything: a cluster that lost two of three has lost what it had.
      await streamLeader(servers);
      const server = random.pick(servers);
      await server.kill();
      await rm(server.storeDir, { recursive: true });
      await server.restart();
      await streamLeader(servers);
    },
    'all killed': async () => {
      await Promise.all(servers.map((server) => server.kill()));
      await scene.pause(1000);
      await Promise.all(servers.map((server) => server.restart()));
    },
    'two stalled': async () => {
      const alive = random.pick(servers);
      const others = servers.filter((server) => server !== alive);
      for (const server of others) server.pause();
      await scene.pause(2000);
      for (const server of others) server.resume();
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

const HOMES = {
  'one server': { size: 1, faultsOf: faultsOfOne },
  'three servers': { size: 3, faultsOf: faultsOfThree },
};

async function open(t: TestContext, size: number): Promise<Scene | undefined> {
  const stage = await CaptureStage.open(t);
  if (stage === undefined) return undefined;
  const durable = { jetstream: 'sync_interval: always' };
  const one = size === 1 ? await startNatsServer(t, durable) : undefined;
  const servers = one === undefined ? size > 1 && (await startNatsCluster(t, size, durable)) : [one];
  if (!servers) return undefined;
  await makeBucket(servers[0], 'backups', { replicas: size });
  const random = randomSource(t);
  const writer = await stage.writer({ ...WORK, seed: random.below(1e6) });
  return new Scene(t, stage, servers, writer, random);
}

for (const [home, { size, faultsOf }] of Object.entries(HOMES)) {
  test(
    `${home}: whatever fails in whatever order, what is offered is right and the newest state comes back`,
    LIMIT,
    async (t) => {
      const scene = await open(t, size);
      if (scene === undefined) return;
      const { stage, writer, random } = scene;
      await scene.replicate();
      await scene.replication.firstPut();
      const replica = await scene.open();
      const copy = join(stage.folder, 'copy.db');
      const follower = new FollowRun(t, { replica: await scene.open(), output: copy });
      const checker = new OracleChecker();
      t.after(() => checker.close());
      const ledger = () => stage.ledger();
      const offer = { replica, checker, folder: stage.folder, ledger, random, moving: true, limit: 5 };
      const faults = Object.entries(await faultsOf(scene));
      let proven = 0;
      for (let round = 0; round < ROUNDS; round++) {
        for (let i = 0; i < FAULTS_A_ROUND; i++) {
          const [name, happen] = random.pick(faults);
          t.diagnostic(`${round}: ${name}`);
          await happen();
          await scene.pause(1000);
        }
        await becomesWhole(scene, replica, checker);
        proven += (await proveOffer({ ...offer, lossy: scene.isLossy })).proven;
      }
      const { seq, commits } = await writer.stop();
      const { txid } = await scene.replication.stop();
      scene.count();
      const output = join(stage.folder, 'newest.db');
      await restore({ replica, output, force: true });
      assert.equal(await firstDifference(stage.database, output), undefined);
      await follower.reaches(BigInt(txid as string));
      assert.equal((await checker.prove(copy)).seq, seq);
      await follower.stop();
      t.diagnostic(`${commits} commits, ${proven} states proven, ${JSON.stringify([...scene.told])}`);
    },
  );
}
