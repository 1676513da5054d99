/** What a process did to certain files, from `strace -f -y` output. */
import { readFileSync } from 'node:fs';

/** The calls that could lock or change a file, or open it so that it could. */
export const WATCHED_CALLS =
  'open,openat,openat2,creat,fcntl,flock,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fallocate,' +
  'copy_file_range,sendfile,mmap,unlink,unlinkat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,chmod,' +
  'fchmod,fchmodat,chown,fchown,fchownat,utimensat,io_uring_setup';

export interface Touches {
  /** Opens of one of the files, for reading only. */
  readonly readOpens: number;
  /** Lines that lock a file, any file at all. */
  readonly locks: readonly string[];
  /** Lines that open one of the files for writing, write to it, map it writably, cut, rename or remove it. */
  readonly writes: readonly string[];
  /** Lines that hand system calls to a ring, where strace does not see them. */
  readonly rings: readonly string[];
}

export function readTrace(path: string, files: readonly string[]): Touches {
  const locks: string[] = [];
  const writes: string[] = [];
  const rings: string[] = [];
  let readOpens = 0;
  for (const line of wholeCalls(readFileSync(path, 'utf8'))) {
    if (/\bio_uring_setup\(/.test(line)) rings.push(line);
    if (/\bflock\(|\bF_(OFD_)?SETLKW?\b|\bF_(SETLKW?64)\b|\bF_SETLEASE\b/.test(line)) locks.push(line);
    // A path stands in quotes where a call names it, in angle brackets where it is the file of a descriptor.
    if (!files.some((file) => line.includes(`"${file}"`) || line.includes(`<${file}>`))) continue;
    if (/\b(open|openat|openat2)\(/.test(line)) {
      if (/\bO_(WRONLY|RDWR|CREAT|TRUNC|APPEND)\b/.test(line)) writes.push(line);
      else readOpens++;
    } else if (/\bmmap\(/.test(line)) {
      if (/PROT_WRITE/.test(line) && /MAP_SHARED/.test(line)) writes.push(line);
    } else if (/\bfcntl\(/.test(line)) {
      if (!/\bF_(GETFL|GETFD|SETFD|DUPFD|DUPFD_CLOEXEC|GETLK)\b|F_SETL/.test(line)) writes.push(line);
    } else writes.push(line);
  }
  return { readOpens, locks, writes, rings };
}

/** One line a call: a call that another thread's interrupted stands in two pieces, each with its thread's number. */
function wholeCalls(trace: string): string[] {
  const begun = new Map<string, string>();
  const calls: string[] = [];
  for (const line of trace.split('\n')) {
    const thread = line.slice(0, line.indexOf(' '));
    const unfinished = line.indexOf('<unfinished ...>');
    if (unfinished !== -1) {
      begun.set(thread, line.slice(0, unfinished));
      continue;
    }
    const resumed = /<\.\.\. \w+ resumed>/.exec(line);
    if (resumed) calls.push((begun.get(thread) ?? '') + line.slice(resumed.index + resumed[0].length));
    else calls.push(line);
    begun.delete(thread);
  }
  return [...calls, ...begun.values()];
}
