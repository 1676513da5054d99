/** The file system's errors in words: what failed, where, and what to do. */

import { JetliteError } from '../errors.js';

const WORDS: Record<string, readonly [problem: string, hint: string]> = {
  ENOENT: ['its folder is gone', 'See who removed it, and mount it or move it back.'],
  EACCES: ['permission denied', 'Give this user read and write permission there, or choose another folder.'],
  EPERM: [
    'the operation is not permitted',
    'Check the owner of the folder and whether its file system allows hard links.',
  ],
  EROFS: ['the file system is read-only', 'Choose a folder that can be written.'],
  ENOSPC: ['the disk is full', 'Free some space; nothing half-written was left behind.'],
  EDQUOT: ['the disk quota is used up', 'Free some space; nothing half-written was left behind.'],
  EFBIG: ['the file would be larger than the file system allows', 'Choose a folder on another file system.'],
  ENOTDIR: ['a part of the path is a file, not a folder', 'Name the folder that holds the replica.'],
  EISDIR: [
    'a folder stands where a file is expected',
    'Look at what put it there; Jetlite makes no such folder.',
  ],
  ENAMETOOLONG: ['the path is too long', 'Choose a folder with a shorter path.'],
  ELOOP: ['its symbolic links lead in a circle', 'Mend the links, or name the folder itself.'],
  EMFILE: ['too many open files', 'Raise the limit of open files (ulimit -n).'],
  EIO: ['the disk reports an error', 'Check the disk.'],
};

/** A JetliteError REPLICA for what the file system refused; every other error as it is. */
export function folderError(error: unknown, verb: string, path: string): unknown {
  if (error instanceof JetliteError) return error;
  const { code, syscall } = error as NodeJS.ErrnoException;
  if (code === undefined || syscall === undefined) return error;
  const [problem, hint] = WORDS[code] ?? [`${code} from ${syscall}`, undefined];
  const details = hint === undefined ? { cause: error } : { cause: error, hint };
  return new JetliteError('REPLICA', `cannot ${verb} ${path}: ${problem}`, details);
}
