import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Capture } from '../../lib/capture/capture.js';
import { sha256 as digestOf, expected } from '../sqlite/files.js';
import { scratchFolder } from '../support/scratch.js';

const FIXTURES = fileURLToPath(new URL('../../../fixtures/sqlite/', import.meta.url));

/** One capture of the database as it stands: its image, as a file's content. */
async function imageOf(database: string): Promise<Buffer> {
  const capture = Capture.open({ database, scratchDir: path.dirname(database), fileEvents: false });
  try {
    while ((await capture.poll()) === 'wait') await capture.wait(20);
    const batch = capture.take();
    assert.ok(batch);
    const image = Buffer.alloc(batch.pageCount * batch.pageSize);
    for (const { pgno, page } of batch.pages.pages()) image.set(page, (pgno - 1) * batch.pageSize);
    return image;
  } finally {
    capture.close();
  }
}

for (const [name, { sha256, liveSha256 }] of Object.entries(expected)) {
  // The super-journal that super-there.db names stands only where the fixture was made: there, it is gone.
  if (sha256 === undefined || name === 'super-there.db' || !fs.existsSync(path.join(FIXTURES, name)))
    continue;
  test(`${name}: capture sees what SQLite makes of these files`, async (t) => {
    const folder = await scratchFolder(t);
    for (const suffix of ['', '-wal', '-shm', '-journal']) {
      const source = path.join(FIXTURES, name + suffix);
      if (fs.existsSync(source)) fs.copyFileSync(source, path.join(folder, name + suffix));
    }
    const image = await imageOf(path.join(folder, name));
    assert.equal(digestOf(image), liveSha256 ?? sha256);
  });
}
