/** WAL files as tests look at them and rewrite them. */
import { readFileSync, writeFileSync } from 'node:fs';

const MAGIC_BIG_ENDIAN = 0x377f0683;

/**
 * Rewrites a WAL so that its checksums read words big-endian, as SQLite writes them on big-endian machines. SQLite
 * recovers such a WAL on any machine and goes on in the same way until it restarts it. Nobody may have it open.
 */
export function makeWalBigEndian(path: string): void {
  const wal = readFileSync(path);
  const pageSize = wal.readUInt32BE(8);
  let s0 = 0;
  let s1 = 0;
  const add = (offset: number, length: number): void => {
    for (let at = offset; at < offset + length; at += 8) {
      s0 = (s0 + wal.readUInt32BE(at) + s1) >>> 0;
      s1 = (s1 + wal.readUInt32BE(at + 4) + s0) >>> 0;
    }
  };
  wal.writeUInt32BE(MAGIC_BIG_ENDIAN, 0);
  add(0, 24);
  wal.writeUInt32BE(s0, 24);
  wal.writeUInt32BE(s1, 28);
  const salts = wal.readBigUInt64BE(16);
  for (
    let at = 32;
    at + 24 + pageSize <= wal.length && wal.readBigUInt64BE(at + 8) === salts;
    at += 24 + pageSize
  ) {
    add(at, 8);
    add(at + 24, pageSize);
    wal.writeUInt32BE(s0, at + 16);
    wal.writeUInt32BE(s1, at + 20);
  }
  writeFileSync(path, wal);
}

export function isWalBigEndian(path: string): boolean {
  return readFileSync(path).readUInt32BE(0) === MAGIC_BIG_ENDIAN;
}

/** How often the WAL of a database was restarted since it was made: its header counts. */
export function walRestarts(database: string): number {
  return readFileSync(`${database}-wal`).readUInt32BE(12);
}
