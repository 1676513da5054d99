import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deviceName, parseLocks } from '../../lib/capture/locks.js';

const TABLE = `1: POSIX  ADVISORY  READ 900 fe:00:5678 128 128
2: POSIX  ADVISORY  WRITE 901 fe:00:5678 120 120
2: -> POSIX  ADVISORY  WRITE 902 fe:00:5678 121 121
3: POSIX  ADVISORY  WRITE 903 fe:00:56789 1073741826 1073742335
4: FLOCK  ADVISORY  WRITE 904 fe:00:77 0 EOF
`;

test('the locks of one file are read from the kernel table, and a waiting request is none', () => {
  assert.deepEqual(parseLocks(TABLE, 'fe:00', 5678n), [
    { pid: 900, write: false, start: 128, end: 128 },
    { pid: 901, write: true, start: 120, end: 120 },
  ]);
  assert.deepEqual(parseLocks(TABLE, 'fe:00', 77n), [
    { pid: 904, write: true, start: 0, end: Number.POSITIVE_INFINITY },
  ]);
  assert.deepEqual(parseLocks(TABLE, 'fe:01', 5678n), []);
  assert.deepEqual(parseLocks(TABLE, 'fe:00', 567n), []);
});

test('device numbers are split as the kernel does', () => {
  assert.equal(deviceName(0xfe00n), 'fe:00');
  assert.equal(deviceName(0x801n), '08:01');
});
