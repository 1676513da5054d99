/** A replica whose user is stopped at the k-th thing that it changes there, as if it had been killed. */

import type { Replica } from '../../lib/replica/replica.js';
import { replicaWith } from './homes.js';

export class Stopped extends Error {}

/**
 * Of the changes made through it the first `allowed` happen; then every call throws Stopped, the change itself having
 * happened (`after`) or not. Several files that are removed in one call are so many changes.
 */
export function stoppedReplica(
  replica: Replica,
  allowed: number,
  when: 'before' | 'after',
): { replica: Replica; readonly changes: number } {
  let changes = 0;
  let stopped = false;
  async function change<T>(action: () => Promise<T>): Promise<T> {
    if (stopped) throw new Stopped();
    changes++;
    stopped = changes > allowed;
    if (stopped && when === 'before') throw new Stopped();
    const result = await action();
    if (stopped) throw new Stopped();
    return result;
  }
  const proxy = replicaWith(replica, {
    write: (target, content, signal) => change(() => replica.write(target, content, signal)),
    writeExtra: (name, bytes, replaces) => change(() => replica.writeExtra(name, bytes, replaces)),
    removeExtra: (name, version) => change(() => replica.removeExtra(name, version)),
    remove: async (files, lease) => {
      for (const file of files) await change(() => replica.remove([file], lease));
    },
  });
  return {
    replica: proxy,
    get changes() {
      return changes;
    },
  };
}
