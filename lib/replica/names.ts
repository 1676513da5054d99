/**
 * The names LTX files have in every home: `ltx/<level>/<min>-<max>.ltx`, Litestream's layout. Companions that no
 * other program reads stand under `jetlite/`.
 */

import { JetliteError } from '../errors.js';
import { ltxFileName, parseLtxFileName } from '../ltx/header.js';

/** Full snapshots stand at this level; 0 holds files as captured, those between hold merged ones. */
export const SNAPSHOT_LEVEL = 9;

/** What a name says of a file. */
export interface LtxName {
  readonly level: number;
  readonly minTxid: bigint;
  readonly maxTxid: bigint;
}

/** The folder of a level, relative to the replica's root. */
export function levelFolder(level: number): string {
  return `ltx/${level}`;
}

/** The name of a file, relative to the replica's root. Throws USAGE for what no LTX file can be called. */
export function ltxPath(file: LtxName): string {
  const { level, minTxid, maxTxid } = file;
  if (!Number.isInteger(level) || level < 0 || level > SNAPSHOT_LEVEL || minTxid < 1n || maxTxid < minTxid) {
    throw new JetliteError(
      'USAGE',
      `level ${level}, TXIDs ${minTxid} to ${maxTxid}: no LTX file is called so`,
    );
  }
  return `${levelFolder(level)}/${ltxFileName(minTxid, maxTxid)}`;
}

/** The level that a folder under `ltx/` is for; undefined if it is none. */
export function parseLevel(name: string): number | undefined {
  return /^[0-9]$/.test(name) ? Number(name) : undefined;
}

/** Names one version of a file: what stands under its name may be replaced. */
export function versionKey(file: LtxName & { readonly version?: string }): string {
  const { level, minTxid, maxTxid, version } = file;
  return `${level}/${minTxid}-${maxTxid}@${version ?? ''}`;
}

const LTX_PATH_START = /^ltx\/[0-9]\//;
const LEVEL_AT = 'ltx/'.length;
const FILE_NAME_AT = 'ltx/0/'.length;

/** The reverse of `ltxPath`; undefined for every other name. Listings of many thousand files go through here. */
export function parseLtxPath(path: string): LtxName | undefined {
  const txids = LTX_PATH_START.test(path) ? parseLtxFileName(path.slice(FILE_NAME_AT)) : undefined;
  return txids && { level: Number(path[LEVEL_AT]), minTxid: txids.minTxid, maxTxid: txids.maxTxid };
}

/** The order of a listing: by level, then first, then last transaction. */
export function compareFiles(a: LtxName, b: LtxName): number {
  if (a.level !== b.level) return a.level - b.level;
  if (a.minTxid !== b.minTxid) return a.minTxid < b.minTxid ? -1 : 1;
  if (a.maxTxid !== b.maxTxid) return a.maxTxid < b.maxTxid ? -1 : 1;
  return 0;
}

/** Whether a companion stands there; not where it belongs to another replica, whose prefix begins with `jetlite`. */
export function isExtraPath(path: string): boolean {
  const [folder, ...parts] = path.split('/');
  return folder === 'jetlite' && !parts.some(isLayout);
}

/** Every replica has its objects under these, so that no companion's name may have them in it. */
function isLayout(part: string): boolean {
  return part === 'ltx' || part === 'jetlite';
}

/** Where the companion `name` stands, relative to the replica's root. */
export function extraPath(name: string): string {
  const parts = name.split('/');
  if (parts.some((part) => !/^[A-Za-z0-9_-][A-Za-z0-9._-]*$/.test(part) || isLayout(part))) {
    throw new JetliteError('USAGE', `${JSON.stringify(name)} cannot name a companion file`);
  }
  return `jetlite/${name}`;
}
