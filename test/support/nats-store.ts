/** Damage to a test server's store, as power failures and bad disks do it: the server must not be running. */

import { cp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { NatsServer } from './nats-server.js';

/** Takes a copy of the store; the answer puts it back in place of what stands there then. */
export async function copyStore(server: NatsServer): Promise<() => Promise<void>> {
  const copy = `${server.storeDir}.copy`;
  await rm(copy, { recursive: true, force: true });
  await cp(server.storeDir, copy, { recursive: true });
  return async () => {
    await rm(server.storeDir, { recursive: true, force: true });
    await cp(copy, server.storeDir, { recursive: true });
  };
}

/** Cuts the bucket's last block off behind that share of its bytes. */
export async function truncateBlock(server: NatsServer, share: number, bucket = 'backups'): Promise<void> {
  const { path, bytes } = (await blocks(server, bucket)).at(-1)!;
  await truncate(path, Math.floor(bytes.length * share));
}

/** Flips one bit some bytes behind the first occurrence of `text` in the bucket's blocks. */
export async function flipBitBehind(
  server: NatsServer,
  text: string | Uint8Array,
  bucket = 'backups',
): Promise<void> {
  for (const { path, bytes } of await blocks(server, bucket)) {
    const at = bytes.indexOf(text);
    if (at < 0) continue;
    bytes[at + text.length + 5] ^= 1;
    await writeFile(path, bytes);
    return;
  }
  throw new Error(`${text} is in no block of ${bucket}`);
}

async function blocks(server: NatsServer, bucket: string): Promise<{ path: string; bytes: Buffer }[]> {
  const folder = join(server.storeDir, 'jetstream', '$G', 'streams', `OBJ_${bucket}`, 'msgs');
  const names = (await readdir(folder)).filter((name) => name.endsWith('.blk'));
  names.sort((a, b) => Number.parseInt(a, 10) - Number.parseInt(b, 10));
  return Promise.all(
    names.map(async (name) => ({ path: join(folder, name), bytes: await readFile(join(folder, name)) })),
  );
}
