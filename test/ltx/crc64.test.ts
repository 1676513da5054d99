import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Crc64 } from '../../lib/ltx/crc64.js';
import { randomSource } from '../support/random.js';
import { PAGE_SIZES } from './pages.js';

/** The definition, bit by bit. */
function slowCrc(bytes: Uint8Array): bigint {
  let crc = 0xffffffffffffffffn;
  for (const byte of bytes) {
    crc ^= BigInt(byte);
    for (let bit = 0; bit < 8; bit++) crc = (crc & 1n) === 1n ? (crc >> 1n) ^ 0xd800000000000000n : crc >> 1n;
  }
  return crc ^ 0xffffffffffffffffn;
}

function crcOf(bytes: Uint8Array): bigint {
  const crc = new Crc64();
  crc.update(bytes);
  return crc.value();
}

test('CRC-64 has the check value of its definition', () => {
  assert.equal(crcOf(new TextEncoder().encode('123456789')), 0xb90956c775a41001n);
  assert.equal(new Crc64().value(), 0n);
});

test('CRC-64 is its definition at every length and alignment', (t) => {
  const random = randomSource(t);
  for (const length of [
    0, 1, 3, 4, 5, 63, 64, 65, 66, 67, 100, 508, 511, 512, 513, 516, 520, 524, 4099, 65_600,
  ]) {
    const offset = random.below(9);
    const bytes = random.bytes(offset + length + 5);
    const crc = new Crc64();
    crc.update(bytes, offset, length);
    assert.equal(crc.value(), slowCrc(bytes.subarray(offset, offset + length)), `length ${length}`);
    assert.equal((BigInt(crc.high) << 32n) | BigInt(crc.low), crc.value());
  }
});

test('CRC-64 does not depend on how the bytes are divided', (t) => {
  const random = randomSource(t);
  const bytes = random.bytes(200_000);
  const crc = new Crc64();
  for (let at = 0; at < bytes.length; ) {
    const length = Math.min(random.pick([1, 4, 10, 64, 100, 4096, 70_000]), bytes.length - at);
    crc.update(bytes, at, length);
    at += length;
  }
  assert.equal(crc.value(), crcOf(bytes));
  crc.reset();
  crc.update(bytes, 7, 999);
  assert.equal(crc.value(), crcOf(bytes.subarray(7, 1006)));
});

test('a page known by its remainder goes into a checksum as its bytes do', (t) => {
  const random = randomSource(t);
  const byRemainder = new Crc64();
  const byBytes = new Crc64();
  const remainder = new Crc64(0);
  for (const size of [...PAGE_SIZES, 512]) {
    const prefix = random.bytes(random.below(12));
    const page = random.bytes(size);
    byRemainder.update(prefix);
    byBytes.update(prefix);
    remainder.reset();
    remainder.update(page);
    byRemainder.append(remainder, size);
    byBytes.update(page);
    assert.equal(byRemainder.value(), byBytes.value(), `page size ${size}`);
  }
});
