/** Every way to reach and authenticate with a server, with success and with each failure in words. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { chmod, writeFile } from 'node:fs/promises';
import { connect as connectTcp, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { JetliteError } from '../../lib/errors.js';
import { parseNatsServers } from '../../lib/replica/nats/address.js';
import { createBucket } from '../../lib/replica/nats/bucket.js';
import { connectNats, type NatsOptions } from '../../lib/replica/nats/connect.js';
import { openReplica } from '../../lib/replica/open.js';
import { type KeyPair, makeAuthority } from '../support/certificates.js';
import { TestOperator } from '../support/nats-accounts.js';
import { makeBucket } from '../support/nats-replica.js';
import { freePort, type NatsServer, startNatsCluster, startNatsServer } from '../support/nats-server.js';
import { bytes, contentOf, target } from '../support/replica.js';
import { scratchFolder } from '../support/scratch.js';

interface Attempt {
  readonly url: string;
  readonly nats?: NatsOptions;
  readonly env?: Record<string, string>;
  readonly onWarning?: (message: string) => void;
}

/** Connects; the bucket that is asked for is not there, and hearing that proves the connection. */
async function reaches(attempt: Attempt): Promise<string> {
  const error = await failure(attempt);
  assert.match(error.message, /there is no bucket nowhere at/, error.message);
  return error.message;
}

async function failure({ url, nats = {}, env = {}, onWarning }: Attempt): Promise<JetliteError> {
  try {
    const options = { nats: { timeoutMs: 5000, ...nats }, env, ...(onWarning ? { onWarning } : {}) };
    await (await openReplica(url, options)).close();
  } catch (error) {
    assert.ok(error instanceof JetliteError, String(error));
    return error;
  }
  assert.fail('the bucket was opened');
}

async function refused(
  attempt: Attempt,
  message: RegExp,
  secrets: readonly string[] = [],
): Promise<JetliteError> {
  const error = await failure(attempt);
  assert.match(error.message, message);
  assert.doesNotMatch(error.message, /\n/);
  assert.ok(error.hint, 'what to do');
  for (const secret of secrets) {
    assert.ok(
      !`${error.message} ${error.hint} ${error.stack}`.includes(secret),
      'a secret is in the message',
    );
  }
  return error;
}

function at(server: NatsServer, userInfo = ''): string {
  return `nats://${userInfo}127.0.0.1:${server.port}/nowhere`;
}

test('a user and password work from the URL, options and NATS_URL, which keeps them for its own server', async (t) => {
  const server = await startNatsServer(t, { config: 'authorization { user: app, password: "s3c:r@t" }' });
  if (server === undefined) return;
  await reaches({ url: at(server, 'app:s3c%3Ar%40t@') });
  await reaches({ url: at(server), nats: { username: 'app', password: 's3c:r@t' } });
  await reaches({ url: at(server, 'app:wrong@'), nats: { username: 'app', password: 's3c:r@t' } });
  const env = { NATS_URL: `nats://app:s3c%3Ar%40t@127.0.0.1:${server.port}` };
  const shown = await reaches({ url: 'nats:///nowhere', env });
  assert.match(shown, new RegExp(`at nats://127\\.0\\.0\\.1:${server.port}$`));
  await reaches({ url: at(server), env });
  const elsewhere = { NATS_URL: `nats://app:s3c%3Ar%40t@127.0.0.1:${server.port + 1}` };
  await refused({ url: at(server), env: elsewhere }, /requires credentials/);
  // Whoever listens at that port must not be given in the clear what was meant for TLS.
  const guarded = { NATS_URL: env.NATS_URL.replace('nats:', 'tls:') };
  await refused({ url: at(server), env: guarded }, /offers no TLS/);
  const mistyped = { NATS_URL: 'nats://app:hunter2@host/B' };
  await refused({ url: 'nats:///nowhere', env: mistyped }, /^NATS_URL: expected .*host/, ['hunter2']);
  await refused({ url: at(server) }, /requires credentials/);
  await refused({ url: at(server, 'app:hunter2@') }, /refused the user name or password/, ['hunter2', 'app']);
  await refused({ url: 'nats:///nowhere' }, /names no NATS server/);
  await refused({ url: at(server), nats: { password: 'hunter2' } }, /password is given without a username/, [
    'hunter2',
  ]);
  await refused(
    { url: at(server), nats: { username: 'a', token: 'hunter2' } },
    /username and token are given/,
    ['hunter2'],
  );
});

test('credentials that a server does not take any more are said in words, and one return is told once', {
  timeout: 60_000,
}, async (t) => {
  const users = (password: string) => `authorization { user: app, password: "${password}" }`;
  const config = { config: users('first') };
  const server = await startNatsServer(t, config);
  if (server === undefined) return;
  const warnings: string[] = [];
  const told = async (pattern: RegExp) => {
    while (!warnings.some((message) => pattern.test(message))) await delay(20);
  };
  const servers = parseNatsServers(`nats://app:first@127.0.0.1:${server.port}`);
  const options = { reconnectWaitMs: 50, timeoutMs: 1000 };
  const link = await connectNats(servers, options, {}, (message) => warnings.push(message));
  t.after(() => link.close());
  config.config = users('second');
  await server.restart();
  await told(/the NATS server refuses our credentials/);
  await assert.rejects(link.ready(300), /the NATS server refuses our credentials/);
  config.config = users('first');
  await server.restart();
  await told(/connected again/);
  await link.ready();
  const count = (pattern: RegExp) => warnings.filter((message) => pattern.test(message)).length;
  assert.deepEqual([count(/connected again/), count(/refuses/), count(/was lost/)], [1, 1, 1]);
  assert.ok(!warnings.join().includes('first'), 'a secret is in a warning');
});

test('a secret given where a path belongs is not shown', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  const seed = 'SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU1VY';
  for (const nkey of [seed, seed.toLowerCase(), ` ${seed}`]) {
    await refused({ url: at(server), nats: { nkey } }, /expected the seed of an nkey/, [nkey.trim()]);
  }
  const creds = '-----BEGIN NATS USER JWT-----\neyJ0secret\n------END NATS USER JWT------\n';
  await refused({ url: at(server), nats: { creds } }, /expected the path/, ['eyJ0secret']);
});

test('a token works from the URL and options', async (t) => {
  const server = await startNatsServer(t, { config: 'authorization { token: s3cret }' });
  if (server === undefined) return;
  await reaches({ url: at(server, 's3cret@') });
  await reaches({ url: at(server), nats: { token: 's3cret' } });
  await refused({ url: at(server), nats: { token: 'hunter2' } }, /refused the token/, ['hunter2']);
});

test('an nkey works by its seed, a file of it, or the public key with the seed', async (t) => {
  const user = new TestOperator().user();
  const server = await startNatsServer(t, {
    config: `authorization { users: [{ nkey: ${user.publicKey} }] }`,
  });
  if (server === undefined) return;
  const url = at(server);
  const other = new TestOperator().user();
  const file = join(await scratchFolder(t), 'user.nk');
  await writeFile(file, `${user.seed}\n`, { mode: 0o600 });
  await reaches({ url, nats: { nkey: user.seed } });
  await reaches({ url, nats: { nkey: user.publicKey, seed: user.seed } });
  await reaches({ url, nats: { nkey: file } });
  await reaches({ url, env: { NATS_NKEY: file } });
  const secrets = [user.seed, other.seed];
  await refused({ url, nats: { nkey: other.seed } }, /refused the nkey/, secrets);
  await refused({ url, nats: { nkey: user.publicKey } }, /no seed is given/);
  await refused({ url, nats: { nkey: user.publicKey, seed: other.seed } }, /does not belong/, secrets);
  await refused({ url, nats: { nkey: `${user.seed.slice(0, -1)}!` } }, /cannot read|seed of an nkey/);
  await refused(
    { url, nats: { nkey: user.seed.replace(/.$/, 'Z').replace(/^SU/, 'SX') } },
    /seed of an nkey/,
    secrets,
  );
});

test('a JWT with its seed, and a credentials file, work; expired and foreign ones are refused', async (t) => {
  const operator = new TestOperator();
  const server = await startNatsServer(t, { config: operator.config });
  if (server === undefined) return;
  const url = at(server);
  const user = operator.user();
  const creds = join(await scratchFolder(t), 'user.creds');
  await writeFile(creds, user.creds, { mode: 0o600 });
  await reaches({ url, nats: { jwt: user.jwt, seed: user.seed } });
  await reaches({ url, nats: { creds } });
  await reaches({ url, env: { NATS_CREDS: creds } });
  const old = operator.user(-60);
  await refused(
    { url, nats: { jwt: old.jwt, seed: old.seed } },
    /refused the JWT, which expired at 20\d\d-/,
    [old.seed, old.jwt],
  );
  const stranger = new TestOperator().user();
  const secrets = [stranger.seed, stranger.jwt, user.seed, user.jwt];
  await refused({ url, nats: { jwt: stranger.jwt, seed: stranger.seed } }, /refused the JWT/, secrets);
  await refused({ url, nats: { jwt: user.jwt, seed: stranger.seed } }, /refused the JWT$/, secrets);
  await refused({ url, nats: { jwt: 'hunter2', seed: user.seed } }, /refused the JWT$/, ['hunter2']);
  await refused({ url, nats: { creds: '/nowhere/user.creds' } }, /creds: cannot read .*does not exist/);
  await writeFile(creds, 'nothing of the kind');
  await refused({ url, nats: { creds } }, /expected a JWT and a seed/);
});

test('a secret file that others can read is warned of', async (t) => {
  const operator = new TestOperator();
  const server = await startNatsServer(t, { config: operator.config });
  if (server === undefined) return;
  const creds = join(await scratchFolder(t), 'user.creds');
  await writeFile(creds, operator.user().creds);
  await chmod(creds, 0o644);
  const warnings: string[] = [];
  await reaches({ url: at(server), nats: { creds }, onWarning: (message) => warnings.push(message) });
  assert.equal(warnings.length, 1);
  assert.match(warnings[0], /user\.creds can be read by other users/);
});

test('TLS: authorities, host names, dates and client certificates are checked on both sides', async (t) => {
  const authority = await makeAuthority(t);
  const other = await makeAuthority(t);
  if (authority === undefined || other === undefined) return;
  const startWith = ({ cert, key }: KeyPair, more = '') =>
    startNatsServer(t, { config: `tls {\n cert_file: "${cert}"\n key_file: "${key}"\n ${more}\n}` });
  const start = async (names: string, days: number, more = '') =>
    startWith(await authority.issue(names, days), more);
  const server = await start('IP:127.0.0.1,DNS:localhost', 2);
  if (server === undefined) return;
  const rootCAs = [authority.cert];
  await reaches({ url: at(server), nats: { rootCAs } });
  await reaches({ url: at(server), nats: { rootCAs: [other.cert, authority.cert], tls: true } });
  const shown = await reaches({ url: `tls://localhost:${server.port}/nowhere`, nats: { rootCAs } });
  assert.match(shown, /at tls:\/\/localhost/);
  await refused({ url: at(server) }, /signed by an unknown authority/);
  await refused({ url: at(server), nats: { rootCAs: [other.cert] } }, /signed by an unknown authority/);
  await refused(
    { url: at(server), nats: { rootCAs: ['/nowhere.pem'] } },
    /root-cas: cannot read .*does not exist/,
  );

  const expired = await start('IP:127.0.0.1', -1);
  await refused({ url: at(expired!), nats: { rootCAs } }, /certificate .* has expired/);
  const early = await startWith(await authority.issueForTomorrow('IP:127.0.0.1'));
  await refused({ url: at(early!), nats: { rootCAs } }, /certificate .* is not valid yet/);
  const selfSigned = await startWith(other.itself);
  await refused({ url: at(selfSigned!), nats: { rootCAs } }, /signed by an unknown authority/);
  const named = await start('DNS:elsewhere.example', 2);
  await refused({ url: at(named!), nats: { rootCAs } }, /is for another host name: elsewhere\.example$/);
  // The client asks about "localhost" where it dials an address: a certificate for that name is none for the address.
  const local = await start('DNS:localhost', 2);
  await refused({ url: at(local!), nats: { rootCAs } }, /is for another host name/);

  const plain = await startNatsServer(t);
  await refused({ url: at(plain!), nats: { tls: true } }, /offers no TLS/);
  await refused({ url: `tls://127.0.0.1:${plain!.port}/nowhere` }, /offers no TLS/);

  const mutual = await start('IP:127.0.0.1', 2, `ca_file: "${authority.cert}"\n verify: true`);
  const client = await authority.issue('DNS:client');
  const alien = await other.issue('DNS:client');
  const url = at(mutual!);
  await reaches({ url, nats: { rootCAs, clientCert: client.cert, clientKey: client.key } });
  // Older servers give the reason in one word for both.
  await refused({ url, nats: { rootCAs } }, /(requires a|refused the) client certificate/);
  const aliens = { rootCAs, clientCert: alien.cert, clientKey: alien.key };
  await refused({ url, nats: aliens }, /refused the client certificate/);
  const stale = await authority.issue('DNS:client', -1);
  const stales = { rootCAs, clientCert: stale.cert, clientKey: stale.key };
  await refused({ url, nats: stales }, /refused the client certificate/);
  await refused(
    { url, nats: { rootCAs, clientCert: client.cert } },
    /client-cert is given without client-key/,
  );
  await refused({ url, nats: { rootCAs, clientKey: client.key } }, /client-key is given without client-cert/);
  const mixed = { rootCAs, clientCert: client.cert, clientKey: alien.key };
  await refused({ url, nats: mixed }, /does not belong to the certificate/);
  const env = { NATS_CA: authority.cert, NATS_CERT: client.cert, NATS_KEY: client.key };
  await reaches({ url, env });
  await reaches({ url, env, nats: { rootCAs } });
  await refused({ url, env, nats: { rootCAs: [other.cert] } }, /signed by an unknown authority/);
  await refused({ url, env: { ...env, NATS_KEY: '' } }, /NATS_CERT is given without NATS_KEY/);
  await refused({ url, env: { ...env, NATS_CA: '/nowhere.pem' } }, /NATS_CA: cannot read/);
  await reaches({ url: at(plain!), env, nats: { tls: false } });
  await refused({ url: at(plain!), env }, /offers no TLS/);
  const swapped = { rootCAs, clientCert: client.key, clientKey: client.cert };
  await refused({ url, nats: swapped }, /holds no certificate/);
});

test('why a server that was there lets nobody in again is said in words', { timeout: 60_000 }, async (t) => {
  const authority = await makeAuthority(t);
  if (authority === undefined) return;
  const tlsWith = async (days: number) => {
    const { cert, key } = await authority.issue('IP:127.0.0.1', days);
    return `tls { cert_file: "${cert}", key_file: "${key}" }`;
  };
  const good = await tlsWith(2);
  const config = { config: good };
  const server = await startNatsServer(t, config);
  if (server === undefined) return;
  const options = { rootCAs: [authority.cert], reconnectWaitMs: 50, timeoutMs: 1000 };
  const link = await connectNats(parseNatsServers(server.url), options, {});
  t.after(() => link.close());
  config.config = await tlsWith(-1);
  await server.restart();
  await assert.rejects(link.ready(300), /the certificate of the NATS server at .* has expired/);
  await server.stop();
  await assert.rejects(link.ready(300), { away: true, message: /connection refused/ });
  config.config = good;
  await server.restart();
  await link.ready(20_000);
});

test('a server that is not there, not found, silent or not NATS is named with its address', async (t) => {
  const nobody = await freePort();
  const url = `nats://user:hunter2@127.0.0.1:${nobody}/nowhere`;
  await refused({ url }, new RegExp(`127\\.0\\.0\\.1:${nobody}: connection refused`), ['hunter2', 'user:']);
  await refused({ url: 'nats://no.such.host.invalid/B' }, /host no\.such\.host\.invalid .* cannot be found/);
  const listen = async (greeting: string) => {
    const server = createServer((socket) => {
      socket.on('error', () => {});
      if (greeting !== '') socket.write(greeting);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    t.after(() => new Promise<void>((resolve) => server.close(() => resolve())));
    server.unref();
    return (server.address() as { port: number }).port;
  };
  const silent = await listen('');
  await refused(
    { url: `nats://127.0.0.1:${silent}/B`, nats: { timeoutMs: 500 } },
    /no answer .* within 0\.5 s/,
  );
  const web = await listen('HTTP/1.1 400 Bad Request\r\n\r\n');
  await refused({ url: `nats://127.0.0.1:${web}/B`, nats: { timeoutMs: 3000 } }, /is no NATS server/);
  // As a NATS server does that wants the TLS handshake before it says anything.
  const closing = createServer((socket) => socket.end()).listen(0, '127.0.0.1');
  await once(closing, 'listening');
  t.after(() => closing.close());
  const closes = `tls://127.0.0.1:${(closing.address() as { port: number }).port}/B`;
  const { hint } = await refused({ url: closes }, /is no NATS server/);
  assert.match(hint ?? '', /handshake_first .* auto/);
});

test('a server that greets and then takes its time is waited for', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  const pairs = new Set<Socket>();
  let come = 0;
  const proxy = createServer((client) => {
    const upstream = connectTcp(server.port, '127.0.0.1');
    for (const socket of [client, upstream]) pairs.add(socket.on('error', () => {}));
    upstream.pipe(client);
    // The second to come is the client, the third a look at what might be wrong with it.
    if (++come !== 2) client.pipe(upstream);
    else setTimeout(() => client.pipe(upstream), 3000).unref();
  });
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    for (const socket of pairs) socket.destroy();
    proxy.close();
  });
  const { port } = proxy.address() as { port: number };
  await reaches({ url: `nats://127.0.0.1:${port}/nowhere`, nats: { timeoutMs: 20_000 } });
  assert.equal(come, 3);
});

test('a server that takes no more connections says so', async (t) => {
  const server = await startNatsServer(t, { config: 'max_connections: 1' });
  if (server === undefined) return;
  // Whoever looked whether the server is up may count for a moment still.
  for (let isIn = false; !isIn; ) {
    const only = connectTcp(server.port, '127.0.0.1').on('error', () => {});
    t.after(async () => only.destroy());
    let said = '';
    only.on('data', (text) => {
      said += text;
    });
    await once(only, 'data');
    await delay(200);
    isIn = !said.includes('-ERR');
  }
  const error = await refused({ url: at(server) }, /127\.0\.0\.1:\d+ takes no more connections$/);
  assert.ok(error.away, 'it may, later');
});

test('of several servers in a URL one that is up is enough', async (t) => {
  const server = await startNatsServer(t);
  if (server === undefined) return;
  await reaches({ url: `nats://127.0.0.1:${await freePort()},127.0.0.1:${server.port}/nowhere` });
});

test('JetStream switched off, and a permission that is missing, are said with what to do', async (t) => {
  const off = await startNatsServer(t, { jetstream: false });
  if (off === undefined) return;
  await refused({ url: at(off) }, /JetStream does not answer/);
  const server = await startNatsServer(t, {
    config:
      'authorization { users: [{ user: a, password: b, permissions: { publish: { deny: "$JS.API.STREAM.INFO.>" } } }] }',
  });
  await refused({ url: at(server!, 'a:b@') }, /may not publish to \$JS\.API\.STREAM\.INFO\.OBJ_nowhere/);
  const account = await startNatsServer(t, {
    config: 'accounts { A: { users: [{ user: a, password: b }] } }',
  });
  await refused({ url: at(account!, 'a:b@') }, /JetStream (does not answer|is not enabled for this account)/);
});

test('a user who may only read, reads, and is told which subject a write would have needed', async (t) => {
  const server = await startNatsServer(t, {
    config: `authorization { users: [
      { user: writer, password: w }
      { user: reader, password: hunter2, permissions: { publish: { deny: "$O.>" } } }
    ] }`,
  });
  if (server === undefined) return;
  const options = (username: string, password: string) => ({ env: {}, nats: { username, password } });
  const url = at(server).replace('nowhere', 'backups');
  const link = await connectNats({
    hosts: [`127.0.0.1:${server.port}`],
    tls: false,
    username: 'writer',
    password: 'w',
  });
  await createBucket(link, 'backups');
  await link.close();
  const writer = await openReplica(url, options('writer', 'w'));
  t.after(() => writer.close());
  const reader = await openReplica(url, options('reader', 'hunter2'));
  t.after(() => reader.close());
  const file = await writer.write(target(0, 1n), bytes('content'));
  assert.deepEqual(await reader.list(), [file]);
  assert.equal(await contentOf(reader, file), 'content');
  const forbidden = { code: 'REPLICA', message: /this user may not publish to \$O\.backups\.[CM]\./ };
  await assert.rejects(reader.write(target(0, 2n), bytes('content')), forbidden);
  await assert.rejects(
    reader.write(target(0, 2n), () => [new Uint8Array(3_000_000)]),
    forbidden,
  );
  await assert.rejects(reader.remove([file]), forbidden);
});

test('a bucket on one server of a cluster is warned of', async (t) => {
  const servers = await startNatsCluster(t);
  if (servers === undefined) return;
  await makeBucket(servers[0], 'single');
  await makeBucket(servers[0], 'triple', { replicas: 3 });
  const warnings: string[] = [];
  for (const bucket of ['single', 'triple']) {
    const options = { env: {}, onWarning: (message: string) => warnings.push(message) };
    await (await openReplica(`${servers[1].url}/${bucket}`, options)).close();
  }
  assert.equal(warnings.length, 1);
  assert.match(warnings[0], /bucket single is on one server of the cluster test/);
});
