/** Buckets on a test's server, and replicas in them that close with the test. */

import { setTimeout as delay } from 'node:timers/promises';
import { connect } from 'nats';
import { type BucketSettings, createBucket } from '../../lib/replica/nats/bucket.js';
import { connectNats } from '../../lib/replica/nats/connect.js';
import { openReplica, type ReplicaOptions } from '../../lib/replica/open.js';
import type { Replica } from '../../lib/replica/replica.js';
import type { NatsServer } from './nats-server.js';

export async function makeBucket(
  server: NatsServer,
  name = 'backups',
  settings: BucketSettings = {},
): Promise<void> {
  const link = await connectNats({ hosts: [`127.0.0.1:${server.port}`], tls: false }, {}, {});
  try {
    await createBucket(link, name, settings);
  } finally {
    await link.close();
  }
}

/** `path`: bucket and, if wanted, prefix. Nothing of the environment counts. */
export async function openBucketReplica(
  t: { after(done: () => Promise<void>): void },
  server: Pick<NatsServer, 'url'>,
  path = 'backups',
  options: ReplicaOptions = {},
): Promise<Replica> {
  const replica = await openReplica(`${server.url}/${path}`, { env: {}, ...options });
  t.after(() => replica.close());
  return replica;
}

/** The index of the server that leads the bucket's stream, once all three hold all of it. */
export async function streamLeader(servers: readonly NatsServer[], bucket = 'backups'): Promise<number> {
  const connection = await connect({ servers: servers.map(({ url }) => url) });
  try {
    const manager = await connection.jetstreamManager({ timeout: 1000, checkAPI: false });
    for (let tries = 0; ; tries++) {
      try {
        const { cluster } = await manager.streams.info(`OBJ_${bucket}`);
        const isWhole =
          cluster?.leader && cluster.replicas?.every(({ current, offline }) => current && !offline);
        if (isWhole) return Number(cluster.leader?.replace('server', ''));
      } catch (error) {
        if (tries > 60) throw error;
      }
      await delay(50);
    }
  } finally {
    await connection.close();
  }
}

/** Bytes in a bucket, chunks and metas. */
export async function bucketBytes(server: NatsServer, bucket = 'backups'): Promise<number> {
  const connection = await connect({ servers: server.url });
  try {
    return (await (await connection.jetstreamManager()).streams.info(`OBJ_${bucket}`)).state.bytes;
  } finally {
    await connection.close();
  }
}
