import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compareReplicas, withoutCredentials } from '../../lib/replica/same-replica.js';

const HERE = 'nats://a:4222,b:4222/backups/app';

test('a bucket is the same by whatever server of its list, scheme, port or name of this machine it is reached', () => {
  for (const [one, another] of [
    [HERE, 'nats://b:4222,a:4222/backups/app'],
    [HERE, 'tls://b/backups/app'],
    [HERE, 'nats://c:4222,A.:4222/backups/app'],
    ['nats://localhost:4222/backups', 'nats://127.0.0.1/backups'],
    ['nats://localhost:4222/backups', 'tls://[0:0:0:0:0:0:0:1]:4222/backups'],
    ['nats://[2001:DB8::1]:4222/backups', 'nats://[2001:db8:0::1]/backups'],
  ] as const) {
    assert.equal(compareReplicas(one, another), 'same', `${one} ${another}`);
    assert.equal(compareReplicas(another, one), 'same', `${another} ${one}`);
  }
});

test('without a server in common buckets of one name stay apart', () => {
  for (const another of [
    'nats://c:4222/backups/app',
    'nats://a:4223,b:4223/backups/app',
    'nats://aa/backups/app',
  ]) {
    assert.equal(compareReplicas(HERE, another), 'namesake', another);
  }
  assert.equal(compareReplicas('nats://127.0.0.1:4222/backups', 'nats://127.0.0.2:4222/backups'), 'namesake');
  assert.equal(compareReplicas('nats://a?x/backups', 'nats://a/backups'), 'namesake');
});

test('another bucket or prefix is another replica, and so is a folder at another place', () => {
  for (const another of ['backups', 'backups/App', 'backups/app/app', 'other/app']) {
    assert.equal(compareReplicas(HERE, `nats://a:4222/${another}`), 'other', another);
  }
  assert.equal(compareReplicas('file:///a/b', 'file:///a/b'), 'same');
  assert.equal(compareReplicas('file:///a/b', 'file:///a/./b'), 'other');
  assert.equal(compareReplicas('file:///a', HERE), 'other');
  assert.equal(compareReplicas('nats://a:x/backups', 'nats://a/backups'), 'other');
});

test('what is written down of a URL has no credentials in it, and all else', () => {
  for (const url of [HERE, 'nats://a:4222/backups/x@y', 'file:///a@b/c'])
    assert.equal(withoutCredentials(url), url);
  for (const url of [
    'nats://me:secret@a:4222/backups',
    'nats://me:se/cret@a:4222/backups',
    'nats://secret@a/b@c',
  ]) {
    assert.doesNotMatch(withoutCredentials(url), /me|cret/, url);
  }
});
