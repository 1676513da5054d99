import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { decodeDatabaseHeader } from '../../lib/sqlite/database.js';
import { decodeWalHeader, FrameScanner, WAL_HEADER_SIZE, WalChecksum } from '../../lib/sqlite/wal.js';
import { decodeWalIndex } from '../../lib/sqlite/wal-index.js';

test('a live WAL scans to the horizon that its -shm header names', () => {
  const folder = mkdtempSync(join(tmpdir(), 'jetlite-wal-'));
  try {
    const path = join(folder, 'live.db');
    const script = `import sqlite3, shutil, sys
path = sys.argv[1]
c = sqlite3.connect(path, isolation_level=None)
c.execute("PRAGMA journal_mode=wal")
c.execute("CREATE TABLE t(a, b)")
for i in range(20):
    c.execute("INSERT INTO t VALUES(?, randomblob(900))", (i,))
for suffix in ("-wal", "-shm"):
    shutil.copyfile(path + suffix, path + suffix + ".copy")`;
    const made = spawnSync('python3', ['-c', script, path], { encoding: 'utf8' });
    assert.equal(made.status, 0, made.stderr);

    const wal = readFileSync(`${path}-wal.copy`);
    const index = decodeWalIndex(readFileSync(`${path}-shm.copy`));
    assert.ok(index.ok);
    const header = decodeWalHeader(wal);
    assert.equal(header.pageSize, 4096);
    const { pageSize, salt1, salt2, checksum1, checksum2, bigEndianChecksum } = header;
    const checksum = new WalChecksum(bigEndianChecksum, checksum1, checksum2);
    const scanner = new FrameScanner(pageSize, salt1, salt2, checksum);
    let frames = 0;
    let commits = 0;
    for (let at = WAL_HEADER_SIZE; at + scanner.frameSize <= wal.length; at += scanner.frameSize) {
      if (!scanner.next(wal, at)) break;
      frames++;
      if (scanner.commit !== 0) commits++;
    }
    assert.equal(frames, index.header.maxFrame);
    assert.equal(commits, index.header.changeCount);
    assert.equal(scanner.commit, index.header.pageCount);
    assert.deepEqual(
      [index.header.salt1, index.header.salt2, index.header.frameChecksum1, index.header.frameChecksum2],
      [salt1, salt2, checksum.s1, checksum.s2],
    );
    assert.equal(decodeDatabaseHeader(readFileSync(path)).writeVersion, 2);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
