import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { ConflictError } from '../../lib/errors.js';
import { openFileReplica } from '../../lib/replica/file.js';
import { bytes, contentOf, target } from '../support/replica.js';

async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'jetlite-file-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

test('a file is listed and read as it was written, under the name and time that Litestream expects', async (t) => {
  const folder = await temporaryFolder(t);
  const replica = await openFileReplica(join(folder, 'new', 'replica'));
  assert.deepEqual(await replica.list(), []);
  for (const ms of [1_700_000_000_123, 1_732_374_000_999, 1_764_000_000_001]) {
    await replica.write(target(0, BigInt(ms), BigInt(ms), ms), bytes('x'));
  }
  const written = await replica.write(target(1, 1n, 10n), () => [
    Buffer.from('hello '),
    Buffer.from('world'),
  ]);
  const path = join(folder, 'new', 'replica', 'ltx', '1', '0000000000000001-000000000000000a.ltx');
  assert.equal((await readFile(path)).toString(), 'hello world');
  assert.equal(Math.floor((await stat(path)).mtimeMs), 1_700_000_000_123);
  assert.equal((await stat(path)).mode & 0o777, 0o600);
  const listed = await replica.list();
  assert.deepEqual(
    listed.map((file) => [file.level, file.timestampMs]),
    [
      [0, 1_700_000_000_123],
      [0, 1_732_374_000_999],
      [0, 1_764_000_000_001],
      [1, 1_700_000_000_123],
    ],
  );
  assert.deepEqual(listed[3], written);
  assert.deepEqual(await replica.list(1), [written]);
  assert.equal(await contentOf(replica, written), 'hello world');
  assert.equal(await contentOf(replica, written, { offset: 6, length: 3 }), 'wor');
  assert.equal(await contentOf(replica, written, { offset: 6, length: 300 }), 'world');
  assert.equal(await contentOf(replica, written, { offset: 60, length: 3 }), '');
});

test('a level-0 name is given once: the same bytes again are success, others a conflict', async (t) => {
  const folder = await temporaryFolder(t);
  const replica = await openFileReplica(folder);
  const other = await openFileReplica(folder);
  await replica.write(target(0, 5n), bytes('five'));
  await replica.write(target(0, 5n), bytes('five'));
  await assert.rejects(other.write(target(0, 5n), bytes('FIVE')), ConflictError);
  assert.equal(await contentOf(replica, (await replica.list())[0]), 'five');
  assert.deepEqual(await readdir(join(folder, 'ltx', '0')), ['0000000000000005-0000000000000005.ltx']);
});

test('a level-0 file below another writer’s higher one is taken back', async (t) => {
  const folder = await temporaryFolder(t);
  const replica = await openFileReplica(folder);
  const other = await openFileReplica(folder);
  await other.write(target(0, 9n), bytes('nine'));
  await assert.rejects(replica.write(target(0, 5n), bytes('five')), ConflictError);
  assert.deepEqual(await readdir(join(folder, 'ltx', '0')), ['0000000000000009-0000000000000009.ltx']);
});

test('of writers racing for one level-0 name exactly one wins, and the name keeps its bytes', async (t) => {
  const folder = await temporaryFolder(t);
  const writers = await Promise.all(Array.from({ length: 4 }, () => openFileReplica(folder)));
  for (let txid = 1n; txid <= 50n; txid++) {
    const results = await Promise.allSettled(
      writers.map((writer, i) => writer.write(target(0, txid), bytes(`${txid} by ${i}`))),
    );
    const winners = results.flatMap((result, i) => (result.status === 'fulfilled' ? [i] : []));
    assert.equal(winners.length, 1, `TXID ${txid}`);
    const file = (await writers[0].list(0)).at(-1)!;
    assert.equal(await contentOf(writers[0], file), `${txid} by ${winners[0]}`);
  }
  assert.equal((await readdir(join(folder, 'ltx', '0'))).length, 50);
});

test('replacing and removing name the version that was listed, and refuse another', async (t) => {
  const folder = await temporaryFolder(t);
  const replica = await openFileReplica(folder);
  const first = await replica.write(target(9, 1n, 4n), bytes('first'));
  const sleeper = await openFileReplica(folder);
  const second = await replica.write(target(9, 1n, 4n, 1_700_000_000_456), bytes('second'));
  assert.notEqual(first.version, second.version);
  const late = { ...target(9, 1n, 4n), replaces: first.version! };
  await assert.rejects(sleeper.write(late, bytes('late')), ConflictError);
  await assert.rejects(sleeper.remove([first]), ConflictError);
  await assert.rejects(contentOf(sleeper, first), { code: 'NOT_FOUND' });
  assert.equal(await contentOf(sleeper, second), 'second');
  await replica.remove([second]);
  await replica.remove([second]);
  assert.deepEqual(await replica.list(), []);
  await assert.rejects(contentOf(replica, second), { code: 'NOT_FOUND' });
});

test('a source that fails half-way, or a signal, leaves nothing under any name', async (t) => {
  const folder = await temporaryFolder(t);
  const replica = await openFileReplica(folder);
  const broken = async function* () {
    yield Buffer.from('half');
    throw new Error('source broke');
  };
  await assert.rejects(replica.write(target(0, 1n), broken), /source broke/);
  const abort = new AbortController();
  const stopped = async function* () {
    yield Buffer.from('half');
    abort.abort();
    yield Buffer.from('other half');
  };
  await assert.rejects(replica.write(target(0, 1n), stopped, abort.signal), { code: 'ABORTED' });
  assert.deepEqual(await readdir(join(folder, 'ltx', '0')), []);
});

test('a temporary file that may be in use is kept, and files that are not ours are not listed', async (t) => {
  const folder = await temporaryFolder(t);
  const level = join(folder, 'ltx', '0');
  await mkdir(level, { recursive: true });
  const temporary = '.0000000000000001-0000000000000001.ltx.0123456789abcdef.tmp';
  await writeFile(join(level, temporary), 'half');
  await utimes(join(level, temporary), 1, 1); // Writers give the time of the commit: an old time is no proof of age.
  await writeFile(join(level, 'README'), 'not ours');
  const replica = await openFileReplica(folder);
  await replica.write(target(0, 2n), bytes('two'));
  assert.deepEqual((await readdir(level)).sort(), [
    temporary,
    '0000000000000002-0000000000000002.ltx',
    'README',
  ]);
  assert.equal((await replica.list()).length, 1);
});

test('a file cut short while it is read is damage, named', async (t) => {
  const folder = await temporaryFolder(t);
  const replica = await openFileReplica(folder);
  const file = await replica.write(target(1, 1n, 2n), () => [new Uint8Array(3_000_000)]);
  const reading = replica.read(file)[Symbol.asyncIterator]();
  await reading.next();
  await writeFile(join(folder, 'ltx/1/0000000000000001-0000000000000002.ltx'), 'short');
  const toTheEnd = async () => {
    while (!(await reading.next()).done);
  };
  await assert.rejects(toTheEnd, {
    code: 'FORMAT',
    message: /0000000000000001-0000000000000002\.ltx.*3000000/,
  });
});

test('a watch shows what comes after it was asked for, also in a folder that does not exist yet', async (t) => {
  const replica = await openFileReplica(join(await temporaryFolder(t), 'later'));
  const stop = new AbortController();
  const watching = replica.watch(stop.signal)[Symbol.asyncIterator]();
  await replica.list();
  await replica.write(target(0, 1n), bytes('one'));
  assert.equal((await watching.next()).value.maxTxid, 1n);
  await replica.write(target(0, 2n), bytes('two'));
  assert.equal((await watching.next()).value.maxTxid, 2n);
  await replica.write(target(1, 1n, 2n), bytes('both'));
  const merged: { level: number } = (await watching.next()).value;
  assert.equal(merged.level, 1);
  const end = watching.next();
  stop.abort();
  assert.equal((await end).done, true);
});

test('a place that cannot be a replica folder is an error in words', async (t) => {
  const folder = await temporaryFolder(t);
  const file = join(folder, 'file');
  await writeFile(file, '');
  const refused = { code: 'REPLICA', message: /expected a folder at .*file, found a file/ };
  await assert.rejects(openFileReplica(file), refused);
  await assert.rejects(openFileReplica(join(file, 'below')), {
    message: /a part of the path is a file, not a folder/,
  });
  await mkdir(join(folder, 'replica'));
  await writeFile(join(folder, 'replica', 'ltx'), '');
  const replica = await openFileReplica(join(folder, 'replica'));
  await assert.rejects(replica.write(target(0, 1n), bytes('x')), { message: /cannot write .*not a folder/ });
  await assert.rejects(replica.list(), { message: /cannot list .*not a folder/ });
});

test('a full disk is an error in words, and nothing half-written stays', async (t) => {
  const folder = await temporaryFolder(t);
  const program = `
    import { readdir } from 'node:fs/promises';
    import { openFileReplica } from ${JSON.stringify(new URL('../../lib/replica/file.js', import.meta.url).href)};
    const replica = await openFileReplica(process.argv[1]);
    const target = { level: 0, minTxid: 1n, maxTxid: 1n, timestampMs: 1 };
    const { code, message } = await replica.write(target, () => [new Uint8Array(4e6)]).catch((error) => error);
    const left = await readdir(process.argv[1] + '/ltx/0');
    console.log(JSON.stringify({ code, message, left }));`;
  // A file system of 1 MB that only this child sees.
  const script = 'mount -t tmpfs -o size=1m tmpfs "$1" && exec "$0" --input-type=module -e "$2" "$1"';
  const args = ['-Urm', 'sh', '-c', script, process.execPath, folder, program];
  const child = spawnSync('unshare', args, { encoding: 'utf8' });
  if (child.status !== 0) {
    t.skip(`no small file system can be made here: ${child.stderr.trim().split('\n')[0]}`);
    return;
  }
  const { code, message, left } = JSON.parse(child.stdout);
  assert.equal(code, 'REPLICA');
  assert.match(message, /cannot write .*: the disk is full/);
  assert.deepEqual(left, []);
});

test('Litestream’s own temporary and final files are told apart', async (t) => {
  const folder = await temporaryFolder(t);
  const level = join(folder, 'ltx', '0');
  await mkdir(level, { recursive: true });
  await writeFile(join(level, '0000000000000001-0000000000000001.ltx.tmp'), 'half');
  await writeFile(join(level, '0000000000000002-0000000000000002.ltx'), 'whole');
  await mkdir(join(level, '0000000000000003-0000000000000003.ltx'));
  const files = await (await openFileReplica(folder)).list();
  assert.deepEqual(
    files.map((file) => file.maxTxid),
    [2n],
  );
});
