/** Credentials and certificates that are renewed in their files while a connection stands. */

import assert from 'node:assert/strict';
import { copyFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { parseNatsServers } from '../../lib/replica/nats/address.js';
import { connectNats, type NatsLink, type NatsOptions } from '../../lib/replica/nats/connect.js';
import { type Authority, makeAuthority } from '../support/certificates.js';
import { TestOperator } from '../support/nats-accounts.js';
import { type NatsServer, startNatsServer } from '../support/nats-server.js';
import { scratchFolder } from '../support/scratch.js';

const AGAIN = { reconnectWaitMs: 50, timeoutMs: 5000 };
const PRIVATE = { mode: 0o600 };

async function connected(
  t: TestContext,
  server: NatsServer,
  options: NatsOptions,
  onWarning?: (message: string) => void,
): Promise<NatsLink> {
  const link = await connectNats(parseNatsServers(server.url), { ...AGAIN, ...options }, {}, onWarning);
  t.after(() => link.close());
  return link;
}

function lost(link: NatsLink): Promise<void> {
  return new Promise((resolve) => link.onLost(() => resolve()));
}

test('credentials that expire are read anew from their file, and said to have expired until they are renewed', async (t) => {
  const operator = new TestOperator();
  const server = await startNatsServer(t, { config: operator.config });
  if (server === undefined) return;
  const creds = join(await scratchFolder(t), 'user.creds');
  await writeFile(creds, operator.user(3).creds, PRIVATE);
  const warnings: string[] = [];
  let heard = (): void => {};
  const refused = new Promise<void>((resolve) => {
    heard = resolve;
  });
  const link = await connected(t, server, { creds }, (message) => {
    warnings.push(message);
    if (/refuses our credentials/.test(message)) heard();
  });
  await refused;
  assert.match(warnings.join('\n'), /refuses our credentials, which expired at 20\d\d-\S+Z/);
  // Not yet whole: what was there before is tried on.
  await writeFile(creds, '-----BEGIN NATS USER JWT-----\n');
  const { creds: renewed } = operator.user();
  await writeFile(creds, renewed);
  await link.ready(20_000);
});

test('an nkey that is replaced in its file is used from the next connection on', async (t) => {
  const operator = new TestOperator();
  const [before, after] = [operator.user(), operator.user()];
  const usersAre = (key: string) => `authorization { users: [ { nkey: ${key} } ] }`;
  const config = { config: usersAre(before.publicKey) };
  const server = await startNatsServer(t, config);
  if (server === undefined) return;
  const nkey = join(await scratchFolder(t), 'user.nk');
  await writeFile(nkey, before.seed, PRIVATE);
  const link = await connected(t, server, { nkey });
  config.config = usersAre(after.publicKey);
  await writeFile(nkey, after.seed);
  await server.restart();
  await link.ready(20_000);
});

test('certificates that are renewed are used from the next connection on, and only as a pair', async (t) => {
  const [before, after] = [await makeAuthority(t), await makeAuthority(t)];
  if (before === undefined || after === undefined) return;
  const config = { config: await mutualTls(before) };
  const server = await startNatsServer(t, config);
  if (server === undefined) return;
  const folder = await scratchFolder(t);
  const [clientCert, clientKey] = [join(folder, 'client.pem'), join(folder, 'client.key')];
  const root = join(folder, 'ca.pem');
  const take = async (authority: Authority): Promise<void> => {
    const pair = await authority.issue('DNS:client');
    await copyFile(authority.cert, root);
    await copyFile(pair.cert, clientCert);
    await copyFile(pair.key, clientKey);
  };
  await take(before);
  const link = await connected(t, server, { rootCAs: [root], clientCert, clientKey });
  // Half of the pair is new: a key of another's certificate is not used.
  const other = await before.issue('DNS:client');
  await copyFile(other.key, clientKey);
  const wasLost = lost(link);
  await server.restart();
  await wasLost;
  await link.ready(20_000);
  config.config = await mutualTls(after);
  await take(after);
  await server.restart();
  await link.ready(20_000);
});

async function mutualTls(authority: Authority): Promise<string> {
  const { cert, key } = await authority.issue('IP:127.0.0.1');
  return `tls { cert_file: "${cert}", key_file: "${key}", ca_file: "${authority.cert}", verify: true }`;
}
