import assert from 'node:assert/strict';
import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { TwoSlots } from '../lib/two-slots.js';
import { randomSource } from './support/random.js';
import { scratchFolder } from './support/scratch.js';

test('a record that was cut off or damaged is none, and the other one stands', async (t) => {
  const random = randomSource(t);
  const path = join(await scratchFolder(t), 'below', 'record');
  const slots = new TwoSlots(path);
  t.after(() => slots.close());
  assert.deepEqual(slots.read(), []);
  slots.write(0, 'the first ü');
  await slots.writeLater(1, 'the second');
  const both = slots.read();
  assert.deepEqual(
    both.map(({ index, text }) => `${index} ${text}`),
    ['0 the first ü', '1 the second'],
  );
  const sound = readFileSync(path);
  for (let n = 0; n < 50; n++) {
    const damaged = Buffer.from(sound);
    const at = random.below(2) * 4096 + random.below(20);
    damaged[at] ^= 1 << random.below(8);
    writeFileSync(path, damaged);
    assert.deepEqual(slots.read(), [both[at < 4096 ? 1 : 0]]);
  }
  writeFileSync(path, sound);
  truncateSync(path, 4096 + random.below(20));
  assert.deepEqual(slots.read(), [both[0]]);
  // Whoever shortens a record leaves nothing of the longer one.
  slots.write(0, '1');
  assert.equal(slots.read()[0]?.text, '1');
});

test('a record that does not fit is refused, and what was there stays', async (t) => {
  const slots = new TwoSlots(join(await scratchFolder(t), 'record'));
  t.after(() => slots.close());
  slots.write(0, 'short');
  assert.throws(() => slots.write(0, 'x'.repeat(4096)), RangeError);
  assert.equal(slots.read()[0]?.text, 'short');
});
