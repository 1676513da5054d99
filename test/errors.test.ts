import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConflictError, FormatError, JetliteError } from '../lib/errors.js';

test('every error is a JetliteError with a stable code, and a format error names its place', () => {
  const cause = new Error('short read');
  const damaged = new FormatError('frame 12', 'checksum differs', { hint: 'restore the file', cause });
  assert.ok(damaged instanceof JetliteError);
  assert.equal(damaged.code, 'FORMAT');
  assert.equal(damaged.message, 'frame 12: checksum differs');
  assert.equal(damaged.hint, 'restore the file');
  assert.equal(damaged.cause, cause);
  assert.equal(new ConflictError('taken').code, 'CONFLICT');
});
