/** A writer and a NATS server that goes away or refuses while its database is replicated. */

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { CaptureStage, LONG } from './capture-stage.js';
import { makeBucket } from './nats-replica.js';
import { type NatsServer, type NatsServerOptions, startNatsServer } from './nats-server.js';
import type { OracleWriter } from './oracle/writer.js';
import type { Replication, ReplicationOptions } from './replication.js';

/** Connections that are tried again soon, and given up soon. */
export const NATS = { reconnectWaitMs: 50, timeoutMs: 1000 };
export const DURABLE = { jetstream: 'sync_interval: always' };

export interface Scene {
  readonly stage: CaptureStage;
  readonly server: NatsServer;
  readonly replica: string;
  readonly writer: OracleWriter;
  replicate(options?: Partial<ReplicationOptions>): Promise<Replication>;
}

/** A writer that commits when it is told to, and a server with a bucket. */
export async function openScene(t: TestContext, options: NatsServerOptions): Promise<Scene | undefined> {
  const server = await startNatsServer(t, options);
  const stage = server && (await CaptureStage.open(t));
  if (server === undefined || stage === undefined) return undefined;
  await makeBucket(server);
  const replica = `${server.url}/backups`;
  const writer = await stage.writer({ paused: true, sizes: [[1, 1, 40]], autocheckpoint: 20 });
  await writer.command('step 5');
  const replicate = (more: Partial<ReplicationOptions> = {}) =>
    stage.replicate({ replica, nats: NATS, ...more });
  return { stage, server, replica, writer, replicate };
}

/** Commits one after the other, each once the one before it waits on disk. Their sequence numbers. */
export async function commitIntoSpool(
  scene: Pick<Scene, 'writer'>,
  replication: Replication,
  count: number,
): Promise<number[]> {
  const seqs: number[] = [];
  for (let i = 0; i < count; i++) {
    const spooled = replication.next('spooled');
    seqs.push((await scene.writer.command('step 1')).seq);
    await spooled;
  }
  return seqs;
}

/** Every state of the replica is a committed one, the newest is the source's, and those of `seqs` are among them. */
export async function assertMoments(
  { stage, replica, writer }: Pick<Scene, 'stage' | 'replica' | 'writer'>,
  seqs: readonly number[],
): Promise<void> {
  await writer.stop();
  const { states } = await stage.prove({ replica, limit: 1000 });
  const found = new Set(states.map(({ seq }) => seq));
  assert.deepEqual(
    seqs.filter((seq) => !found.has(seq)),
    [],
    'commits without a state of their own',
  );
}

/** Of a test on a scene. */
export const LIMIT = { timeout: LONG ? 300_000 : 90_000 };

/** A test on a scene of its own; skipped where there is no server. */
export function scenario(
  name: string,
  run: (scene: Scene, t: TestContext) => Promise<void>,
  options: NatsServerOptions = DURABLE,
): void {
  test(name, LIMIT, async (t) => {
    const scene = await openScene(t, options);
    if (scene !== undefined) await run(scene, t);
  });
}
