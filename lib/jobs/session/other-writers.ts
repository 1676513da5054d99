/**
 * Watches for programs that write to the replica of a running job. Litestream looks at nothing and overwrites, so a name
 * that could be created says little: whatever stands at level 0 and was not put by this job ends it.
 *
 * What the job had put above the other's file is taken back: it holds the changes of states that the replica does not have
 * any more, and the other program would merge it into its own.
 */

import { setTimeout as delay } from 'node:timers/promises';
import { ConflictError } from '../../errors.js';
import { ltxPath } from '../../replica/names.js';
import type { LtxFileInfo, Replica } from '../../replica/replica.js';
import { writerOf } from '../../replica/writer.js';
import { pause } from './attempts.js';
import type { Companion, SessionParts } from './companion.js';

/** How long a watch that broke is left alone: the replica is out of reach, perhaps. */
const BROKEN_MS = 1000;
/** How long to wait for the put under way before ours are taken back. */
const LAST_PUT_MS = 5000;

export function watchOtherWriters(session: SessionParts): Companion {
  const stopping = new AbortController();
  const watching = watch(session, stopping.signal);
  return {
    stop: async () => {
      stopping.abort();
      await watching;
    },
  };
}

async function watch(session: SessionParts, signal: AbortSignal): Promise<void> {
  // Files up to here were there before the job, and may come again: a server's store can be rolled back.
  const begun = session.uploader.txid;
  while (!signal.aborted) {
    try {
      const other = await findOther(session, begun, signal);
      if (other === undefined) continue;
      session.fail(await conflictWith(session, other));
      await takeBackAbove(session, other);
      return;
    } catch {
      // Puts meet the same trouble and report it.
      await pause(BROKEN_MS, signal);
    }
  }
}

/** The first file of another writer that is seen; undefined when the signal fires or the watch ends. */
async function findOther(
  { replica }: SessionParts,
  begun: bigint,
  signal: AbortSignal,
): Promise<LtxFileInfo | undefined> {
  const changes = replica.watch(signal);
  // What came before the watch, or while it was broken.
  for (const file of await replica.list(0)) {
    if (file.maxTxid > begun && !replica.isOwn(file)) return file;
  }
  for await (const file of changes) {
    if (file.level === 0 && file.maxTxid > begun && !replica.isOwn(file)) return file;
  }
  return undefined;
}

/** By the file itself, or by what stands under its name a moment later: Litestream sets a file's time after its name. */
async function nameOfWriter(replica: Replica, file: LtxFileInfo): Promise<string> {
  try {
    return await writerOf(replica, file);
  } catch {
    const again = (await replica.list(0).catch(() => [])).find(({ maxTxid }) => maxTxid === file.maxTxid);
    return again === undefined ? 'another program' : writerOf(replica, again).catch(() => 'another program');
  }
}

/** The error that ends a job in whose replica another writer put this file: who, what and when. */
export async function conflictWith({ replica }: SessionParts, file: LtxFileInfo): Promise<ConflictError> {
  const who = file.writer ?? (await nameOfWriter(replica, file));
  const when = new Date(file.timestampMs).toISOString();
  return new ConflictError(
    `${who} writes to ${replica.url} as well: it put ${ltxPath(file)}, a state of ${when}`,
    { hint: 'Only one program may write a replica: stop one of them, or give each a replica of its own.' },
  );
}

async function takeBackAbove(session: SessionParts, other: LtxFileInfo): Promise<void> {
  const { replica, uploader } = session;
  const timer = new AbortController();
  const last = delay(LAST_PUT_MS, undefined, { signal: timer.signal }).catch(() => undefined);
  await Promise.race([uploader.idle(), last]);
  timer.abort();
  const files = await replica.list(0);
  const above = files.filter((file) => file.maxTxid > other.maxTxid && replica.isOwn(file));
  const taken = await replica.takeBack(above.reverse());
  if (taken === 0) return;
  session.emit({
    type: 'state',
    level: 'warn',
    message: `took back ${taken} files that stood above ${ltxPath(other)}: they go on from a state that is not in ${replica.url} any more`,
  });
}
