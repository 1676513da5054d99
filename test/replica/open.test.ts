import assert from 'node:assert/strict';
import { resolve } from 'node:path';
import { test } from 'node:test';
import { JetliteError } from '../../lib/errors.js';
import { parseReplicaUrl } from '../../lib/replica/open.js';

function usageOf(url: string): JetliteError {
  try {
    parseReplicaUrl(url);
  } catch (error) {
    assert.ok(error instanceof JetliteError);
    assert.equal(error.code, 'USAGE');
    return error;
  }
  assert.fail(`${url} was accepted`);
}

test('a path, absolute or relative, is a folder replica', () => {
  assert.deepEqual(parseReplicaUrl('/backups/app'), { kind: 'file', folder: '/backups/app' });
  assert.deepEqual(parseReplicaUrl('backups'), { kind: 'file', folder: resolve('backups') });
  assert.deepEqual(parseReplicaUrl('file:///backups/my%20app'), { kind: 'file', folder: '/backups/my app' });
});

test('a NATS URL gives servers, credentials, bucket and prefix', () => {
  assert.deepEqual(parseReplicaUrl('nats://localhost/backups'), {
    kind: 'nats',
    servers: { hosts: ['localhost:4222'], tls: false },
    bucket: 'backups',
    prefix: '',
  });
  assert.deepEqual(parseReplicaUrl('tls://us%40er:p%3Aw@a.example:4223,[::1]:4224/B-1/tenants/one/'), {
    kind: 'nats',
    servers: { hosts: ['a.example:4223', '[::1]:4224'], tls: true, username: 'us@er', password: 'p:w' },
    bucket: 'B-1',
    prefix: 'tenants/one',
  });
  assert.deepEqual(parseReplicaUrl('nats://s3cret@h1:1,nats://s3cret@h2:2/B'), {
    kind: 'nats',
    servers: { hosts: ['h1:1', 'h2:2'], tls: false, token: 's3cret' },
    bucket: 'B',
    prefix: '',
  });
  assert.deepEqual(parseReplicaUrl('nats://h/B/alice%40example.com'), {
    kind: 'nats',
    servers: { hosts: ['h:4222'], tls: false },
    bucket: 'B',
    prefix: 'alice@example.com',
  });
  assert.deepEqual(parseReplicaUrl('nats:///B/p'), {
    kind: 'nats',
    servers: undefined,
    bucket: 'B',
    prefix: 'p',
  });
});

test('an address that cannot be a replica is refused with what was expected', () => {
  assert.match(usageOf('').message, /empty/);
  assert.match(usageOf('s3://bucket/x').message, /s3:\/\/ is no kind of replica/);
  assert.match(usageOf('file://backups').message, /three slashes/);
  assert.match(usageOf('nats://localhost').message, /names no bucket/);
  assert.match(usageOf('nats://localhost/').message, /names no bucket/);
  assert.match(usageOf('nats://localhost/a.b').message, /"a\.b" cannot be a bucket/);
  assert.match(usageOf('nats://localhost/B/a//b').message, /empty part/);
  assert.match(usageOf('nats://localhost/B/../c').message, /\.\./);
  assert.match(usageOf('nats://localhost:99999/B').message, /port from 1 to 65535/);
  assert.match(usageOf(`nats://localhost/B/${'é'.repeat(1025)}`).message, /longer than 2048 bytes/);
  assert.match(usageOf('nats://localhost/B?x=1').message, /takes no \?/);
  assert.match(usageOf('nats://localhost/B/%zz').message, /two hex digits/);
  assert.match(usageOf('nats://h/B/alice@example.com').hint ?? '', /@ in a prefix as %40/);
  assert.doesNotMatch(usageOf('nats://me:pw@h').hint ?? '', /%40/);
  assert.match(usageOf('/backups/app.zip').message, /not supported yet/);
});

test('no part of a user or password is shown, however wrong the URL is', () => {
  const wrong = [
    'nats://app:hunter2@',
    'nats://app:hunter2@localhost',
    'nats://app:hunter2@localhost:port/B',
    'nats://app:hunter2@localhost/bad.bucket',
    'nats://app:hun/ter2@localhost:0/B',
    'nats://app:1,hunter2@localhost/B',
    'nats://app:hunter2%@localhost/B',
    'nats://app:hunter2@local host/B?x',
    'nats//app:hunter2@localhost/B',
    'nats/app:hunter2@localhost/B',
    'app:hunter2@localhost:4222/B',
    'hunter2@localhost:4222/B',
    'hunter2@[::1]:4222',
    'hunter2@a:1,b:2/B',
    '//app:hunter2@localhost/B',
    '//hunter2@localhost/B',
    '://app:hun/ter2@localhost/B',
    'nats;//app:hun/ter2@localhost/B',
    'nats.//hunter2@localhost/B',
    'nats:\\hunter2@localhost\\B',
    '"nats://app:hunter2@localhost/B"',
    'nat//app:hun/ter2@localhost/B',
    'tls//hunter2@localhost:4222/B',
  ];
  for (const url of wrong) {
    const { message, hint } = usageOf(url);
    assert.doesNotMatch(`${message} ${hint}`, /app|hun|ter2/, url);
  }
});
