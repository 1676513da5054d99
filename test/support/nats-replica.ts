/** Buckets on a test's server, and replicas in them that close with the test. */

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
  server: NatsServer,
  path = 'backups',
  options: ReplicaOptions = {},
): Promise<Replica> {
  const replica = await openReplica(`${server.url}/${path}`, { env: {}, ...options });
  t.after(() => replica.close());
  return replica;
}
