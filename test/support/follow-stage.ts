/** A replica of a source, a copy that follows it, and readers of the copy. */

import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { FollowOptions } from '../../lib/jobs/follow.js';
import { CopyReaders, CopyStage } from './copy-stage.js';
import { FollowRun } from './follow-run.js';

/** A copy that is being followed, and readers of it. */
export async function following(t: TestContext, options: Partial<FollowOptions> = {}) {
  const stage = await CopyStage.open(t);
  if (stage === undefined) return undefined;
  const run = new FollowRun(t, { replica: stage.replica, output: stage.path, ...options });
  await run.sees((event) => event.type === 'following');
  return { stage, run, readers: new CopyReaders(t, stage.path) };
}

/** The same, its follower stopped at TXID 3 after two more rows. */
export async function followedTwoRows(t: TestContext) {
  const made = await following(t);
  if (made === undefined) return undefined;
  await made.stage.row();
  await made.stage.row();
  await made.run.reaches(3n);
  await made.run.stop();
  return made;
}

/** Where the files of level 0 are. */
export const level0 = (stage: CopyStage) => join(stage.source.folder, 'replica', 'ltx', '0');
/** The file name of one TXID. */
export const nameOf = (txid: number) => {
  const hex = txid.toString(16).padStart(16, '0');
  return `${hex}-${hex}.ltx`;
};
