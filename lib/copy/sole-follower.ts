/** That a live copy has one follower: two would write over each other's frames. */

import { createHash } from 'node:crypto';
import { createServer } from 'node:net';
import { JetliteError } from '../errors.js';

/**
 * Claims a copy until the answer is called or the process ends, however it ends: a socket in Linux's abstract namespace has
 * no file that could be left behind. Elsewhere, and across network namespaces, nothing is claimed.
 * @throws JetliteError OUTPUT if another process on this machine follows at this path
 */
export async function claimCopy(path: string): Promise<() => Promise<void>> {
  if (process.platform !== 'linux') return async () => {};
  const name = `\0jetlite-live-copy-${createHash('sha256').update(path).digest('hex').slice(0, 32)}`;
  const server = createServer((socket) => socket.destroy());
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(name, resolve);
    });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') return async () => {};
    throw new JetliteError('OUTPUT', `another process follows at ${path} already`, {
      hint: 'One copy has one follower: end the other, or choose another output path.',
    });
  }
  server.unref();
  return () => new Promise((resolve) => server.close(() => resolve()));
}
