/** Both homes of a replica, for tests of what must hold in either. */

import { type TestContext, test } from 'node:test';
import { openFileReplica } from '../../lib/replica/file.js';
import type { Replica } from '../../lib/replica/replica.js';
import { makeBucket, openBucketReplica } from './nats-replica.js';
import { startNatsServer } from './nats-server.js';
import { scratchFolder } from './scratch.js';

/** Opens the same replica anew, as another program would. */
export type OpenReplica = () => Promise<Replica>;

const HOMES: Record<string, (t: TestContext) => Promise<OpenReplica | undefined>> = {
  folder: async (t) => {
    const path = await scratchFolder(t);
    return () => openFileReplica(path);
  },
  bucket: async (t) => {
    const server = await startNatsServer(t);
    if (server === undefined) return undefined;
    await makeBucket(server);
    return () => openBucketReplica(t, server, 'backups/p');
  },
};

/** A test for each home, of an empty replica; `name` says what holds. */
export function inEveryHome(name: string, check: (open: OpenReplica, t: TestContext) => Promise<void>): void {
  for (const [home, prepare] of Object.entries(HOMES)) {
    test(`${home}: ${name}`, async (t) => {
      const open = await prepare(t);
      if (open !== undefined) await check(open, t);
    });
  }
}

/** The replica with some of its methods replaced. */
export function replicaWith(replica: Replica, methods: Partial<Replica>): Replica {
  return new Proxy(replica, {
    get(target, key) {
      const found = methods[key as keyof Replica] ?? target[key as keyof Replica];
      return typeof found === 'function' ? found.bind(target) : found;
    },
  });
}
