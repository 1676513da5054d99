/** What names, sizes and times of a folder's files tell of what it has lost. Contents are not looked at. */

import { LTX_LEAST_SIZE } from '../ltx/header.js';
import { ltxPath } from './names.js';
import type { FileFlaw, LtxFileInfo } from './replica.js';

/** The flaws of `files`, all that there are, and of `remembered` ones. */
export function flawsOf(files: readonly LtxFileInfo[], remembered: readonly LtxFileInfo[]): FileFlaw[] {
  const flaws: FileFlaw[] = [];
  const found = new Map<string, LtxFileInfo>();
  for (const file of files) {
    found.set(ltxPath(file), file);
    // What a crash leaves of a file that was not on the disk yet most often has no byte at all.
    if (file.size < LTX_LEAST_SIZE) flaws.push(damaged(file, `at least ${LTX_LEAST_SIZE}`));
  }
  for (const file of remembered) {
    const flaw = flawOf(file, found.get(ltxPath(file)));
    if (flaw !== undefined) flaws.push(flaw);
  }
  return flaws;
}

/** Inodes change when a folder is copied; sizes and times do not. */
function flawOf(file: LtxFileInfo, found: LtxFileInfo | undefined): FileFlaw | undefined {
  if (found === undefined) return { file, kind: 'gone', message: 'the file is gone' };
  if (found.size < LTX_LEAST_SIZE) return undefined;
  if (found.size < file.size) return damaged(found, `${file.size}`);
  if (found.size === file.size && found.timestampMs === file.timestampMs) return undefined;
  const message = `another file stands under its name (${found.size} bytes instead of ${file.size})`;
  return { file, kind: 'replaced', message };
}

function damaged(file: LtxFileInfo, expected: string): FileFlaw {
  return { file, kind: 'damaged', message: `expected ${expected} bytes, found ${file.size}` };
}
