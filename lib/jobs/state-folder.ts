/**
 * Where Jetlite keeps what belongs to one database: `.<name>-jetlite` beside it, unless the user says otherwise. What
 * belongs to one of its replicas is in a folder of its own inside, so that two replicas never mix.
 */

import { createHash } from 'node:crypto';
import path from 'node:path';
import { claim } from '../claim.js';
import { ConflictError } from '../errors.js';

/** The folder of a database's state. Nothing is created. */
export function stateFolder(database: string, stateDir?: string): string {
  if (stateDir !== undefined) return path.resolve(stateDir);
  const resolved = path.resolve(database);
  return path.join(path.dirname(resolved), `.${path.basename(resolved)}-jetlite`);
}

/** The folder inside it that belongs to one replica. */
export function replicaStateFolder(folder: string, replicaUrl: string): string {
  return path.join(folder, createHash('sha256').update(replicaUrl).digest('hex').slice(0, 16));
}

/**
 * Claims what belongs to a database and one of its replicas, until the answer is called: `folder` is that of the two.
 * @throws ConflictError if another process on this machine is at work with it
 */
export function claimState(
  folder: string,
  database: string,
  replicaUrl: string,
): Promise<() => Promise<void>> {
  return claim(folder, () => {
    const what = `another process on this machine replicates ${database} to ${replicaUrl} already`;
    return new ConflictError(`${what}; nothing was touched`, {
      hint: `Let it do the work, or end it first. It uses ${folder}.`,
    });
  });
}
