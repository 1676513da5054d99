/**
 * Where Jetlite keeps what belongs to one database: `.<name>-jetlite` beside it, unless the user says otherwise. What
 * belongs to one of its replicas is in a folder of its own inside, so that two replicas never mix.
 */

import { createHash } from 'node:crypto';
import path from 'node:path';

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
