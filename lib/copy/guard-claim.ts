/**
 * Whether a guard of a live copy lives. A follower that is killed takes its guard along, but a moment later, or much later
 * if that is in the middle of a checkpoint: until it is gone nobody may append to the copy.
 */

import { setTimeout as delay } from 'node:timers/promises';
import { claim } from '../claim.js';
import { JetliteError } from '../errors.js';

const LOOK_AGAIN_MS = 10;
/** A guard that has nothing to finish is gone by then. */
const TELL_AFTER_MS = 1000;

/** Claims the copy for as long as this process lives. False if another guard has it. */
export async function claimAsGuard(path: string): Promise<boolean> {
  return (await claimed(path)) !== undefined;
}

/** Resolves when there is no guard of that copy any more, or the signal fires. `tell` is called if that takes long. */
export async function awaitGuardsEnd(
  path: string,
  tell: () => void,
  signal: AbortSignal | undefined,
): Promise<void> {
  for (let waitedMs = 0; signal?.aborted !== true; waitedMs += LOOK_AGAIN_MS) {
    const release = await claimed(path);
    if (release !== undefined) return release();
    if (waitedMs === TELL_AFTER_MS) tell();
    await delay(LOOK_AGAIN_MS);
  }
}

async function claimed(path: string): Promise<(() => Promise<void>) | undefined> {
  const taken = new JetliteError('OUTPUT', `${path} has a guard`);
  return claim(`${path} (guard)`, () => taken).catch((error) => {
    if (error !== taken) throw error;
    return undefined;
  });
}
