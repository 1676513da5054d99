/**
 * Folders, with every folder above them that is missing. Node's own recursive `mkdir` never comes back where the system
 * answers "no such file" although the folder above is there, as `/proc` and some mounted file systems do.
 */

import { mkdirSync, statSync } from 'node:fs';
import { mkdir, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { isMissing } from './errors.js';

/** Private, with all above it. Throws the system's error. */
export function makeFolderSync(folder: string): void {
  try {
    make(folder);
  } catch (error) {
    if (!isMissing(error) || dirname(folder) === folder) throw error;
    makeFolderSync(dirname(folder));
    make(folder);
  }
}

function make(folder: string): void {
  try {
    mkdirSync(folder, 0o700);
  } catch (error) {
    if (isMissing(error) || !isFolder(folder)) throw error;
  }
}

function isFolder(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch {
    return false;
  }
}

/** The same; the answer is the folders that were made, outermost first. `mode` is subject to the umask. */
export async function makeFolders(folder: string, mode = 0o700): Promise<string[]> {
  try {
    return await makeOne(folder, mode);
  } catch (error) {
    if (!isMissing(error) || dirname(folder) === folder) throw error;
    const above = await makeFolders(dirname(folder), mode);
    return [...above, ...(await makeOne(folder, mode))];
  }
}

async function makeOne(folder: string, mode: number): Promise<string[]> {
  try {
    await mkdir(folder, mode);
    return [folder];
  } catch (error) {
    const isThere = !isMissing(error) && (await stat(folder).catch(() => undefined))?.isDirectory();
    if (isThere) return [];
    throw error;
  }
}
