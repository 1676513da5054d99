import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readAhead } from '../../../lib/jobs/rebuild/read-ahead.js';
import { openFileReplica } from '../../../lib/replica/file.js';
import type { LtxFileInfo, Replica } from '../../../lib/replica/replica.js';
import { randomSource } from '../../support/random.js';
import { scratchFolder } from '../../support/scratch.js';

async function replicaOf(t: Parameters<typeof scratchFolder>[0], contents: readonly Uint8Array[]) {
  const replica = await openFileReplica(await scratchFolder(t));
  const files: LtxFileInfo[] = [];
  for (const [i, content] of contents.entries()) {
    const txid = BigInt(i + 1);
    files.push(
      await replica.write(
        { level: 0, minTxid: txid, maxTxid: txid, timestampMs: 1_700_000_000_000 + i },
        () => [content],
      ),
    );
  }
  return { replica, files };
}

async function read(replica: Replica, files: readonly LtxFileInfo[], parallelism: number) {
  const contents: Buffer[] = [];
  const memory = new Set<ArrayBufferLike>();
  for await (const { bytes } of readAhead(replica, files, parallelism)) {
    const parts: Uint8Array[] = [];
    for await (const part of bytes) {
      parts.push(part.slice());
      memory.add(part.buffer);
    }
    contents.push(Buffer.concat(parts));
  }
  return { contents, memory };
}

test('many small files are fetched into the memory of a few, and each arrives as it is', async (t) => {
  const random = randomSource(t);
  const contents = Array.from({ length: 40 }, () => random.bytes(40_000 + random.below(20_000)));
  const { replica, files } = await replicaOf(t, contents);
  const { contents: found, memory } = await read(replica, files, 4);
  assert.deepEqual(
    found,
    contents.map((bytes) => Buffer.from(bytes)),
  );
  assert.ok(memory.size <= 5, `${memory.size} pieces of memory`);
});

test('a file may be longer or shorter than its listing said', async (t) => {
  const random = randomSource(t);
  const contents = [0, 1, 5000, 1_000_000, 3_000_000, 70_000].map((size) => random.bytes(size));
  const { replica, files } = await replicaOf(t, contents);
  const wrong = files.map((file, i) => ({ ...file, size: [9, 0, 3, 4096, 10, 900_000][i] }));
  const { contents: found } = await read(replica, wrong, 3);
  assert.deepEqual(
    found,
    contents.map((bytes) => Buffer.from(bytes)),
  );
});
