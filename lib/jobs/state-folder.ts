/**
 * Where Jetlite keeps what belongs to one database: `.<name>-jetlite` beside it, unless the user says otherwise.
 */

import path from 'node:path';

/** The folder of a database's state. Nothing is created. */
export function stateFolder(database: string, stateDir?: string): string {
  if (stateDir !== undefined) return path.resolve(stateDir);
  const resolved = path.resolve(database);
  return path.join(path.dirname(resolved), `.${path.basename(resolved)}-jetlite`);
}
