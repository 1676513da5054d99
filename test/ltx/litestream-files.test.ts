/** LTX files that real Litestream wrote, kept in fixtures/ltx: how they were made is said there. */

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { createReadStream, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { formatTxid } from '../../lib/ltx/header.js';
import { mergeLtx } from '../../lib/ltx/merge.js';
import { decodePage } from '../../lib/ltx/page.js';
import { readPageIndex } from '../../lib/ltx/page-index.js';
import { AppliedDatabase, type ChainFile, filesOfLevel } from './chains.js';
import { decodeFile, encodeFile } from './pages.js';

interface Fixture {
  readonly folder: string;
  /** By TXID: what Litestream restored. */
  readonly states: Record<string, { readonly bytes: number; readonly sha256: string }>;
}

function openFixture(name: string): Fixture {
  const folder = fileURLToPath(new URL(`../../../fixtures/ltx/${name}/`, import.meta.url));
  return { folder: `${folder}ltx`, states: JSON.parse(readFileSync(`${folder}states.json`, 'utf8')) };
}

const FIXTURES = ['litestream-0.5.17', 'litestream-0.5.5'];
const LEVELS = [0, 1, 2, 9];

function assertState(fixture: Fixture, txid: bigint, bytes: Uint8Array): void {
  const found = { bytes: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex') };
  assert.deepEqual(found, fixture.states[formatTxid(txid)], `TXID ${txid}`);
}

for (const name of FIXTURES) {
  test(`${name}: level 0 leads through every state that Litestream restores`, async () => {
    const fixture = openFixture(name);
    const database = new AppliedDatabase();
    const files = filesOfLevel(fixture.folder, 0);
    assert.deepEqual(
      files.map((file) => formatTxid(file.maxTxid)),
      Object.keys(fixture.states),
    );
    for (const file of files) {
      await database.apply(file);
      assertState(fixture, file.maxTxid, database.bytes);
    }
  });

  test(`${name}: merged levels and snapshots lead to the same states`, async () => {
    const fixture = openFixture(name);
    let snapshots = 0;
    for (const level of [1, 2, 9]) {
      let database = new AppliedDatabase();
      for (const file of filesOfLevel(fixture.folder, level)) {
        if (file.minTxid === 1n) {
          database = new AppliedDatabase();
          snapshots++;
        }
        await database.apply(file);
        const ahead = name === 'litestream-0.5.5' && level === 9 && file.maxTxid === 5n;
        assertState(fixture, ahead ? 6n : file.maxTxid, database.bytes);
      }
    }
    assert.ok(snapshots >= 4);
  });

  test(`${name}: merging its files as Litestream does gives what Litestream merged`, async () => {
    const fixture = openFixture(name);
    const level0 = filesOfLevel(fixture.folder, 0);
    for (const level of [1, 2]) {
      for (const theirs of filesOfLevel(fixture.folder, level)) {
        const inputs = level0.filter((f) => f.minTxid >= theirs.minTxid && f.maxTxid <= theirs.maxTxid);
        const ours = await decodeFile(await mergeFiles(inputs));
        const expected = await decodeFile(readFileSync(theirs.path));
        assert.deepEqual(ours.header, expected.header);
        assert.deepEqual(ours.pages, expected.pages);
      }
    }
    const all = await decodeFile(await mergeFiles(level0));
    const last = level0[level0.length - 1];
    assertState(fixture, last.maxTxid, Buffer.concat([...all.pages.values()]));
  });

  test(`${name}: each page is found by the index alone`, async () => {
    for (const level of LEVELS) {
      for (const file of filesOfLevel(openFixture(name).folder, level)) {
        const bytes = readFileSync(file.path);
        const readRange = async (offset: number, length: number) => bytes.subarray(offset, offset + length);
        const index = await readPageIndex(readRange, bytes.length, file.path);
        const { pages } = await decodeFile(bytes);
        assert.deepEqual([...index.pgnos], [...pages.keys()]);
        const page = new Uint8Array(index.header.pageSize);
        for (const [pgno, expected] of pages) {
          const { offset, length } = index.find(pgno)!;
          decodePage(bytes.subarray(offset, offset + length), pgno, page, file.path);
          assert.deepEqual(page, expected);
        }
      }
    }
  });

  test(`${name}: what is decoded and encoded again holds the same`, async () => {
    for (const file of filesOfLevel(openFixture(name).folder, 0)) {
      const theirs = await decodeFile(readFileSync(file.path));
      const ours = await decodeFile(encodeFile(theirs.header, theirs.pages));
      assert.deepEqual(ours.header, theirs.header);
      assert.deepEqual(ours.pages, theirs.pages);
    }
  });
}

test('the fixtures hold both encodings of pages', () => {
  const flagsOf = (name: string) => {
    const [first] = filesOfLevel(openFixture(name).folder, 0);
    return readFileSync(first.path).readUInt16BE(104);
  };
  assert.deepEqual(FIXTURES.map(flagsOf), [1, 0]);
});

async function mergeFiles(files: readonly ChainFile[]): Promise<Buffer> {
  const blocks: Uint8Array[] = [];
  const inputs = files.map(({ path }) => ({ name: path, source: createReadStream(path) }));
  for await (const block of mergeLtx(inputs)) blocks.push(block);
  return Buffer.concat(blocks);
}
