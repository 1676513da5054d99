/**
 * That a folder's files have one process that writes them: a live copy its follower, what belongs to a database and its
 * replica the process that replicates. Two would write over each other's.
 */

import { createHash } from 'node:crypto';
import { createConnection, createServer } from 'node:net';
import type { JetliteError } from './errors.js';

/** All that an address takes, with the zero it begins with: older versions of Node fill a shorter name up, newer do not. */
const NAME_LENGTH = 108;

/**
 * Claims a path until the answer is called or the process ends, however it ends: a socket in Linux's abstract namespace has
 * no file that could be left behind. Elsewhere, and across network namespaces, nothing is claimed.
 * @param path absolute
 * @param taken makes the error to throw if another process on this machine has claimed it
 */
export async function claim(path: string, taken: () => JetliteError): Promise<() => Promise<void>> {
  if (process.platform !== 'linux') return async () => {};
  const name = nameOf(path);
  const server = createServer((socket) => socket.destroy());
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(name, resolve);
    });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') return async () => {};
    throw taken();
  }
  server.unref();
  return () => new Promise((resolve) => server.close(() => resolve()));
}

/** Whether a process on this machine has claimed a path. Nothing is claimed by asking. */
export async function isClaimed(path: string): Promise<boolean> {
  if (process.platform !== 'linux') return false;
  const socket = createConnection(nameOf(path));
  try {
    return await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true));
      socket.once('error', () => resolve(false));
    });
  } finally {
    socket.destroy();
  }
}

function nameOf(path: string): string {
  const digest = createHash('sha256').update(path).digest('hex');
  return `\0jetlite-${digest}`.padEnd(NAME_LENGTH, '-');
}
