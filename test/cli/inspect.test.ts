import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdir, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { showTxid } from '../../cli/format.js';
import { inspect } from '../../cli/inspect/inspect.js';
import { LtxEncoder } from '../../lib/ltx/encoder.js';
import { LTX_FLAG_NO_CHECKSUM, ltxFileName } from '../../lib/ltx/header.js';
import { fixture } from '../sqlite/files.js';
import { scratchFolder } from '../support/scratch.js';
import { jetlite, type Run } from './run.js';

interface Document {
  kind: string;
  sound: boolean;
  problems: string[];
  notes: string[];
  [key: string]: unknown;
}

/** Writes bytes under a name that says nothing, unless one is given, and inspects them. */
async function inspectBytes(t: TestContext, bytes: Uint8Array, name = 'file'): Promise<Document> {
  const path = join(await scratchFolder(t), name);
  await writeFile(path, bytes);
  const report = await inspect(path, new AbortController().signal);
  return JSON.parse(JSON.stringify(report.toJson(), showTxid)) as Document;
}

function changed(name: string, at: number, ...bytes: number[]): Uint8Array {
  const copy = fixture(name);
  copy.set(bytes, at);
  return copy;
}

test('every kind of file is recognised by its content alone', async (t) => {
  const kinds: [string, string][] = [
    ['page-65536.db', 'database'],
    ['spills.db-wal', 'WAL'],
    ['big-endian.db-wal', 'WAL'],
    ['index-commits.shm', 'WAL index'],
    ['hot.db-journal', 'rollback journal'],
    ['truncate.db-journal', 'empty file'],
  ];
  for (const [name, kind] of kinds) {
    const document = await inspectBytes(t, fixture(name));
    assert.deepEqual([document.kind, document.sound, document.problems], [kind, true, []], name);
  }
});

test('a file that begins with zeros or damage is recognised by its name', async (t) => {
  const zeroed = await inspectBytes(t, fixture('persist.db-journal'), 'app.db-journal');
  assert.deepEqual([zeroed.kind, zeroed.sound, zeroed.hot], ['rollback journal', true, false]);
  const unsynced = await inspectBytes(t, fixture('unsynced.db-journal'), 'app.db-journal');
  assert.deepEqual([unsynced.sound, unsynced.hot], [true, false]);
  const emptied = await inspectBytes(t, new Uint8Array(3), 'app.db-shm');
  assert.deepEqual([emptied.kind, emptied.sound], ['WAL index', false]);
  const damaged = await inspectBytes(t, changed('spills.db-wal', 0, 0), 'app.db-wal');
  assert.deepEqual([damaged.kind, damaged.sound], ['WAL', false]);
  assert.match(damaged.problems[0], /^the WAL header: expected magic .*, found 7f0682; SQLite takes nothing/);
});

test('a database shows its header, and a length that is not its own', async (t) => {
  const whole = await inspectBytes(t, fixture('page-512.db'));
  assert.deepEqual(
    [whole.pageSize, whole.pagesByHeader, whole.pagesByLength, whole.lockPage, whole.writeVersion],
    [512, 4, 4, 2097153, 1],
  );
  const cut = await inspectBytes(t, fixture('page-512.db').subarray(0, 3 * 512));
  assert.deepEqual(cut.problems, ['the length: expected 4 pages of 512 bytes, found 3']);
  const refused = await inspectBytes(t, changed('page-512.db', 16, 3, 0));
  assert.match(refused.problems[0], /^the database header: expected a page size/);
});

test('a WAL shows its commits, where its chain ends and why, and what lies behind', async (t) => {
  const wal = await inspectBytes(t, fixture('spills.db-wal'));
  const { frames, validFrames, lastCommit, beyond } = wal as unknown as {
    frames: number;
    validFrames: number;
    lastCommit: number;
    beyond: { otherSalts: number };
  };
  assert.ok(lastCommit < validFrames && validFrames < frames);
  assert.equal(beyond.otherSalts, frames - validFrames);
  assert.match(wal.notes[0], /after the last commit: of a transaction under way, rolled back or cut off/);

  const frameSize = 24 + 512;
  const broken = await inspectBytes(t, changed('wal-512.db-wal', 32 + 4 * frameSize + 100, 0xaa, 0xbb));
  assert.equal(broken.validFrames, 4);
  assert.match(broken.problems[0], /^frame 5: a checksum that does not continue the chain, and \d commits/);

  const cut = await inspectBytes(t, fixture('wal-512.db-wal').subarray(0, 32 + 4 * frameSize + 300));
  assert.deepEqual([cut.frames, cut.validFrames, cut.sound], [4, 4, true]);
  assert.match(cut.notes.join(), /the last 300 bytes are a part of a frame/);

  const unsummed = await inspectBytes(t, fixture('unsummed.db-wal'));
  assert.match(
    unsummed.problems[0],
    /^frame 1: a frame without salts and checksum, and 2 commits .*3\.50\.2/,
  );
});

test('an index shows its header, or each copy by itself when they differ', async (t) => {
  const sound = await inspectBytes(t, fixture('index-reader.shm'));
  assert.deepEqual([sound.maxFrame, sound.changeCount, sound.backfill], [8, 7, 6]);
  assert.deepEqual(sound.readMarks, [0, 6, 7, null, null]);
  const torn = await inspectBytes(t, changed('index-reader.shm', 16, 9));
  assert.match(torn.problems[0], /the two copies differ/);
  const [first, second] = torn.copies as { state: string; maxFrame?: number }[];
  assert.deepEqual([first.state, second.state, second.maxFrame], ['checksum', 'sound', 8]);
});

test('a journal shows its segments and whether it is hot as far as it can know', async (t) => {
  const hot = await inspectBytes(t, fixture('hot-sectors.db-journal'));
  assert.deepEqual([hot.hot, hot.sectorSize, hot.segments, hot.superJournal], [true, 4096, 3, null]);
  assert.equal((hot.segmentList as unknown[]).length, 3);
  const gone = await inspectBytes(t, fixture('super-gone.db-journal'));
  assert.equal(gone.hot, false);
  assert.equal((gone.superJournal as { exists: boolean }).exists, false);
  const damaged = await inspectBytes(t, changed('super-there.db-journal', 512 + 2 * 1032 + 4 + 824, 0xee));
  assert.match(damaged.problems[0], /^record 3 of the segment at byte 0: a checksum .*, expected 7 records/);
});

function ltxFile(): Uint8Array {
  const encoder = new LtxEncoder({
    flags: LTX_FLAG_NO_CHECKSUM,
    pageSize: 512,
    commit: 3,
    minTxid: 1n,
    maxTxid: 0x1fn,
    timestampMs: 1_700_000_000_000,
    preApplyChecksum: 0n,
    walOffset: 0,
    walSize: 0,
    walSalt1: 0,
    walSalt2: 0,
    nodeId: 0n,
  });
  for (let pgno = 1; pgno <= 3; pgno++) encoder.writePage(pgno, new Uint8Array(512).fill(pgno));
  return encoder.finish();
}

test('an LTX file is verified to its trailer and against its name', async (t) => {
  const bytes = ltxFile();
  const sound = await inspectBytes(t, bytes, ltxFileName(1n, 0x1fn));
  assert.deepEqual([sound.kind, sound.sound, sound.pages, sound.commit], ['LTX file', true, 3, 3]);
  assert.deepEqual([sound.maxTxid, sound.timestamp], ['000000000000001f', '2023-11-14T22:13:20.000Z']);
  const [first, second] = sound.pageList as { page: number; byte: number; size: number; encoding: string }[];
  assert.deepEqual([first.page, first.byte, first.encoding], [1, 100, 'LZ4 block']);
  assert.deepEqual([second.page, second.byte], [2, 100 + first.size]);
  assert.deepEqual(sound.pageEncoding, { blocks: 3, frames: 0 });
  const damaged = bytes.slice();
  damaged[bytes.length - 1] ^= 1;
  assert.match((await inspectBytes(t, damaged)).problems[0], /checksum/);
  assert.match(
    (await inspectBytes(t, bytes.subarray(0, 130))).problems[0],
    /found the end of the file at byte 130/,
  );
  const empty = await inspectBytes(t, new Uint8Array(0), ltxFileName(1n, 0x1fn));
  assert.match(empty.problems[0], /: expected the header, found the end of the file at byte 0/);
  assert.deepEqual([empty.kind, empty.sound], ['LTX file', false]);
  assert.equal((await inspectBytes(t, new Uint8Array([...bytes, 0]))).sound, false);
  const misnamed = await inspectBytes(t, bytes, ltxFileName(1n, 2n));
  assert.match(misnamed.problems[0], /^the name: expected 0000000000000001-000000000000001f\.ltx/);
});

test('people get aligned lines with the verdict first, programs one document, scripts an exit code', async (t) => {
  const path = join(await scratchFolder(t), 'app.db-wal');
  await writeFile(path, fixture('wal-512.db-wal'));
  const text = await jetlite(['inspect', path]);
  const lines = text.stdout.trimEnd().split('\n');
  assert.equal(lines[0], `${path}: WAL, 10216 bytes, sound`);
  assert.equal(new Set(lines.slice(1).map((line) => /^ {2}.*? {2,}(?=\S)/.exec(line)?.[0].length)).size, 1);
  assert.deepEqual([text.exitCode, text.stderr], [0, '']);

  await writeFile(path, changed('wal-512.db-wal', 32 + 100, 0xaa, 0xbb));
  const json = await jetlite(['inspect', '--json', path]);
  const document = JSON.parse(json.stdout) as Document;
  assert.deepEqual([document.sound, document.problems.length, json.exitCode, json.stderr], [false, 1, 1, '']);
});

test('what cannot be read or is nothing known is an error in one line', async (t) => {
  const folder = await scratchFolder(t);
  await mkdir(join(folder, 'folder.db'));
  await writeFile(join(folder, 'notes.txt'), 'not a database');
  execFileSync('mkfifo', [join(folder, 'pipe.db')]);
  const refused: [string, RegExp, number][] = [
    [join(folder, 'missing.db'), /^jetlite: cannot read .*missing\.db: no such file\n$/, 1],
    [join(folder, 'folder.db'), /^jetlite: .*folder\.db: expected a file, found a directory\n$/, 1],
    [join(folder, 'pipe.db'), /^jetlite: .*pipe\.db: expected a file, found a pipe\n$/, 1],
    [
      join(folder, 'notes.txt'),
      /^jetlite: .*notes\.txt: expected a SQLite database, .* found bytes 6e6f74/,
      1,
    ],
  ];
  for (const [path, message, exitCode] of refused) {
    const run: Run = await jetlite(['inspect', path]);
    assert.match(run.stderr, message);
    assert.deepEqual([run.exitCode, run.stdout], [exitCode, '']);
  }
  assert.equal((await jetlite(['inspect'])).exitCode, 2);
});

test('memory does not grow with the file', async (t) => {
  const path = join(await scratchFolder(t), 'large.db-wal');
  await writeFile(path, fixture('wal-512.db-wal'));
  await truncate(path, 400e6);
  const peak = "process.on('exit',()=>process.stderr.write(String(process.resourceUsage().maxRSS)))";
  const run = await jetlite(['inspect', path, '--json'], {
    env: { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(peak)}` },
  });
  assert.equal((JSON.parse(run.stdout) as { validFrames: number }).validFrames, 19);
  assert.ok(Number(run.stderr) * 1024 < 200e6, `${run.stderr} KiB resident`);
});
