import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { findConfig, findDatabase, loadConfig, parseConfig } from '../../cli/config.js';
import { JetliteError } from '../../lib/errors.js';

const FILE = '/etc/jetlite.yml';

function refusal(yaml: string, env: Record<string, string> = {}): string {
  try {
    parseConfig(yaml, FILE, env);
  } catch (error) {
    assert.ok(error instanceof JetliteError, String(error));
    assert.equal(error.code, 'USAGE');
    return `${error.message}${error.hint === undefined ? '' : ` | ${error.hint}`}`;
  }
  assert.fail(`expected a refusal of\n${yaml}`);
}

/** A configuration with one database whose replica section is these lines. */
function withReplica(...lines: string[]): string {
  return ['dbs:', '  - path: /x.db', '    replica:', ...lines.map((line) => `      ${line}`)].join('\n');
}

function replicaOf(...lines: string[]) {
  return parseConfig(withReplica(...lines), FILE, {}).databases[0].replica;
}

test('a database with a NATS replica, every connection option of the guide', () => {
  const replica = replicaOf(
    'type: nats',
    'url: nats://nats.example.com:4222/BUCKET/some/prefix',
    'sync-interval: 250ms',
    'username: myuser',
    'password: 0123',
    'tls: true',
    'root-cas: [/a.pem, /b.pem]',
    'client-cert: /c.pem',
    'client-key: /c.key',
    'max-reconnects: -1',
    'reconnect-wait: 2s',
    'timeout: 1m30s',
  );
  assert.equal(replica.syncIntervalMs, 250);
  assert.deepEqual(replica.nats, {
    username: 'myuser',
    password: '0123',
    tls: true,
    rootCAs: ['/a.pem', '/b.pem'],
    clientCert: '/c.pem',
    clientKey: '/c.key',
    maxReconnects: -1,
    reconnectWaitMs: 2000,
    timeoutMs: 90_000,
  });
  assert.ok(replica.address.kind === 'nats');
  assert.equal(replica.address.bucket, 'BUCKET');
  assert.equal(replica.address.prefix, 'some/prefix');
});

test('each way to authenticate stands alone', () => {
  const url = 'url: nats://h/B';
  assert.deepEqual(replicaOf(url, 'token: 12.50').nats, { token: '12.50' });
  assert.deepEqual(replicaOf(url, 'jwt: eyJ', 'seed: SUA').nats, { jwt: 'eyJ', seed: 'SUA' });
  assert.deepEqual(replicaOf(url, 'creds: /x.creds').nats, { creds: '/x.creds' });
  assert.deepEqual(replicaOf(url, 'nkey: UAB', 'seed: SUA').nats, { nkey: 'UAB', seed: 'SUA' });
  assert.match(
    refusal(withReplica(url, 'token: a', 'creds: b')),
    /:6: dbs\[0\]\.replica\.creds: token says how/,
  );
  assert.match(refusal(withReplica(url, 'jwt: a')), /:5: dbs\[0\]\.replica\.jwt: needs seed beside it/);
  assert.match(refusal(withReplica(url, 'seed: a')), /replica\.seed: needs jwt or nkey/);
  assert.match(refusal(withReplica(url, 'password: a')), /replica\.password: needs username/);
  assert.match(refusal(withReplica(url, 'client-key: a')), /replica\.client-key: needs client-cert/);
  assert.match(refusal(withReplica(url, 'client-cert: a')), /replica\.client-cert: needs client-key/);
});

test('a bucket and a path say the same as a URL, and contradictions are refused', () => {
  const address = (...lines: string[]) => {
    const read = replicaOf(...lines).address;
    return read.kind === 'nats' ? [read.servers?.hosts, read.bucket, read.prefix] : read.folder;
  };
  assert.deepEqual(address('type: nats', 'bucket: B', 'path: /a/b/'), [undefined, 'B', 'a/b']);
  assert.deepEqual(address('url: nats://u:p@h:1,nats://i:2', 'bucket: B'), [['h:1', 'i:2'], 'B', '']);
  assert.deepEqual(address('url: nats://h/B', 'bucket: B', 'path: p'), [['h:4222'], 'B', 'p']);
  assert.equal(address('path: /var/backup'), '/var/backup');
  assert.equal(address('type: file', 'path: ~/backup'), join(homedir(), 'backup'));
  assert.equal(address('url: file:///var/backup'), '/var/backup');
  assert.match(
    refusal(withReplica('url: nats://h/B', 'bucket: C')),
    /:5: .*bucket: the url names another bucket, B/,
  );
  assert.match(refusal(withReplica('url: nats://h/B/p', 'path: q')), /path: the url names a prefix already/);
  assert.match(
    refusal(withReplica('type: file', 'url: nats://h/B')),
    /type: says file, .* of a nats replica/,
  );
  assert.match(refusal(withReplica('type: s3', 'bucket: B')), /type: expected nats or file, found "s3"/);
  assert.match(refusal(withReplica('type: nats')), /type: a NATS replica needs a url or a bucket/);
  assert.match(
    refusal(withReplica('sync-interval: 1s')),
    /:4: dbs\[0\]\.replica: expected a url, a bucket or a path/,
  );
  assert.match(refusal(withReplica('path: /b', 'tls: true')), /tls: only a NATS replica can have this/);
  assert.match(refusal(withReplica('path: /b', 'age: {identities: []}')), /age: Jetlite cannot encrypt/);
});

test('a replica URL that cannot be one is refused at its line without showing its password', () => {
  const message = refusal(withReplica('url: nats://user:hunter2@host:99999/B'));
  assert.match(message, /:4: dbs\[0\]\.replica\.url: /);
  assert.doesNotMatch(message, /hunter2/);
});

test('unknown keys are refused with their line and the key that may have been meant', () => {
  assert.match(
    refusal('dbs: []\nlogings: {}'),
    /^\/etc\/jetlite\.yml:2: logings: .* \| Did you mean logging\?$/,
  );
  assert.match(
    refusal(withReplica('url: nats://h/B', 'sync_interval: 1s')),
    /:5: .* \| Did you mean sync-interval\?/,
  );
  assert.match(refusal(withReplica('url: nats://h/B', 'zzzzzz: 1')), /:5: .* \| Known here: .*url, username/);
  assert.match(
    refusal('logging:\n  level: info\n  colour: true'),
    /:3: logging\.colour: there is no such key/,
  );
});

test('wrong types and values are refused with their line', () => {
  assert.match(refusal('dbs: 3'), /:1: dbs: expected a list, found a single value/);
  assert.match(refusal('dbs:\n  - /x.db'), /:2: dbs\[0\]: expected keys with values, found a single value/);
  assert.match(refusal('- a\n- b'), /:1: the file: expected keys with values, found a list/);
  assert.match(refusal('dbs:\n- path: [a]'), /:2: dbs\[0\]\.path: expected text, found a list/);
  const url = 'url: nats://h/B';
  assert.match(
    refusal(withReplica(url, 'sync-interval: 5 minutes')),
    /:5: .*a duration such as .* found "5 minutes"/,
  );
  assert.match(refusal(withReplica(url, 'sync-interval: 0s')), /a duration of more than 0, found "0s"/);
  assert.match(refusal(withReplica(url, 'timeout: 10')), /timeout: expected a duration such as/);
  assert.match(refusal(withReplica(url, 'tls: maybe')), /tls: expected true or false, found "maybe"/);
  assert.match(refusal(withReplica(url, 'max-reconnects: -2')), /whole number of at least -1, found "-2"/);
  assert.match(refusal(withReplica(url, 'root-cas: /a.pem')), /root-cas: expected a list/);
  assert.match(refusal(withReplica(url, 'root-cas: [[a]]')), /root-cas\[0\]: expected text, found a list/);
  assert.match(refusal('logging: {level: loud}'), /logging\.level: expected debug, info, warn or error/);
  assert.match(refusal('logging: {type: xml}'), /logging\.type: expected text or json, found "xml"/);
  assert.match(refusal('spool-max-bytes: lots'), /a size such as/);
  assert.match(
    refusal('levels: [{interval: 5m}, {interval: 30s}]'),
    /levels\[1\]\.interval: expected longer/,
  );
  assert.match(refusal('levels: []'), /levels: expected 1 to 8 levels, found 0/);
  assert.match(refusal('levels: [{every: 30s}]'), /levels\[0\]/);
  assert.match(refusal('snapshot: {interval: often}'), /snapshot\.interval: expected a duration such as/);
});

test('a wrong value of a secret is not shown', () => {
  assert.doesNotMatch(
    refusal(withReplica('url: nats://h/B', 'username: u', 'password: [hunter2]')),
    /hunter2/,
  );
});

test('impossible combinations of a database are refused', () => {
  const replica = 'replica: {path: /b}';
  assert.match(refusal(`dbs:\n- ${replica}`), /:2: dbs\[0\]: expected either path or dir/);
  assert.match(refusal('dbs:\n- path: /x'), /dbs\[0\]: expected a replica/);
  assert.match(
    refusal(`dbs:\n- path: /x\n  watch: true\n  ${replica}`),
    /:3: .*watch: only a folder of databases/,
  );
  assert.match(refusal(`dbs:\n- dir: /x\n  ${replica}`), /dir: needs a pattern/);
  assert.match(refusal('dbs:\n- path: /x\n  replicas: [{path: /a}, {path: /b}]'), /one replica, found 2/);
  assert.match(
    refusal(`dbs:\n- path: /x\n  ${replica}\n- path: /y\n  ${replica}`),
    /:5: dbs\[1\]\.replica: goes where the database in line 2 goes/,
  );
  assert.match(
    refusal(`dbs:\n- path: /x\n  ${replica}\n- path: /x\n  replica: {path: /c}`),
    /stands in line 2 already/,
  );
});

test('what is not YAML is refused with file and line', () => {
  assert.match(refusal('dbs:\n  - path: a: b'), /^\/etc\/jetlite\.yml:2: /);
  assert.match(refusal('dbs: [\n'), /^\/etc\/jetlite\.yml:\d: /);
  assert.match(refusal('a: 1\na: 2'), /:2: a: the key stands here a second time/);
  assert.match(refusal('dbs: *nothing'), /:1: an unquoted \* stands for an anchor, and there is none above$/);
  assert.match(refusal(`dbs: [{replica: {url: \${URL}}}]`), /put a variable in quotes/);
  assert.match(
    refusal('a: !s3!cr x'),
    /:1: undeclared tag handle \| Put a value that begins with ! in quotes\.$/,
  );
  assert.match(refusal(''), /the file is empty/);
  assert.match(refusal('# nothing\n'), /the file is empty/);
  assert.match(refusal('dbs: []\n---\ndbs: []'), /expected one document, found 2/);
});

test('variables are expanded in values only, once, and a missing one is a warning where nothing is secret', () => {
  const yaml = withReplica(
    `url: "nats://\${HOST}:4222/$BUCKET"`,
    'username: $USER_NAME',
    `password: "a$\${P}#$"`,
  );
  const config = parseConfig(yaml, FILE, { HOST: 'h', BUCKET: 'B', USER_NAME: 'x: {y', P: '$HOST' });
  const { replica } = config.databases[0];
  assert.ok(replica.address.kind === 'nats');
  assert.deepEqual(replica.address.servers?.hosts, ['h:4222']);
  assert.deepEqual(replica.nats, { username: 'x: {y', password: 'a$$HOST#$' });
  assert.deepEqual(config.warnings, []);

  const unset = parseConfig(withReplica(`url: nats://me:pw@h/B\${PREFIX}`), FILE, {});
  assert.ok(unset.databases[0].replica.address.kind === 'nats');
  assert.deepEqual(unset.warnings, [
    `${FILE}:4: the environment variable PREFIX is not set; it stands for nothing`,
  ]);

  const literal = parseConfig(withReplica('url: nats://h/B', `token: \${TOKEN}`), FILE, undefined);
  assert.deepEqual(literal.databases[0].replica.nats, { token: `\${TOKEN}` });
});

test('what follows a dollar sign in a password is not shown', () => {
  for (const lines of [
    ['username: me', 'password: Tr0ub$Xy12zz'],
    ['token: Tr0ub$Xy12zz'],
    ['username: me', 'password: Tr0ub$Xy12zz/a'],
    ['url: nats://me:Tr0ub$Xy12zz@h/B'],
    ['url: nats://me:Tr0ub$Xy12zz/a@h/B'],
  ]) {
    const yaml = withReplica(...(lines[0].startsWith('url') ? [] : ['url: nats://h/B']), ...lines);
    assert.match(refusal(yaml), /an environment variable [^|]* is not set/);
    assert.doesNotMatch(refusal(yaml), /Xy12zz/);
  }
});

test('a variable that is not set where a credential stands is refused by its name and key', () => {
  const credentials = {
    password: ['username: me', `password: "x\${PW}"`],
    username: ['username: $PW', 'password: x'],
    token: [`token: \${PW}`],
    jwt: ['jwt: $PW', 'seed: SU'],
    seed: ['jwt: ey', `seed: "\${PW}"`],
    creds: ['creds: $PW/nats.creds'],
    nkey: ['nkey: $PW'],
    'client-cert': ['client-cert: $PW', 'client-key: key.pem'],
    'client-key': ['client-cert: cert.pem', 'client-key: $PW'],
    'root-cas': ['root-cas: [a.pem, $PW]'],
  };
  for (const [key, lines] of Object.entries(credentials)) {
    const line = 5 + lines.findIndex((text) => text.startsWith(`${key}:`));
    const yaml = withReplica('url: nats://h/B', ...lines);
    assert.throws(() => parseConfig(yaml, FILE, {}), {
      code: 'USAGE',
      message: `${FILE}:${line}: dbs[0].replica.${key}: the environment variable PW is not set`,
    });
    parseConfig(yaml, FILE, { PW: 'there' });
    parseConfig(yaml, FILE, undefined);
  }
  const inUrl = withReplica(`url: "nats://me:\${PW}@$HOST/B"`);
  assert.throws(() => parseConfig(inUrl, FILE, { HOST: 'h' }), {
    message: `${FILE}:4: dbs[0].replica.url: the environment variable PW is not set`,
  });
});

test('a sign at the beginning of a secret that YAML takes for its own is refused, and the secret not shown', () => {
  const keys = ['username', 'password', 'token', 'jwt', 'seed', 'creds', 'nkey', 'client-cert', 'client-key'];
  for (const key of keys) {
    for (const sign of ['!', '&', '#']) {
      for (const value of ['s3cr', 's3cr x', 's3cr#!x', 's3cr!', `s3cr "x"`]) {
        for (const rest of ['', 'sync-interval: 1s']) {
          const said = refusal(withReplica('url: nats://h/B', `${key}: ${sign}${value}`, rest));
          assert.match(said, /:5: /, value);
          assert.match(said, new RegExp(`Put a value that begins with ${sign} in quotes`), value);
          assert.doesNotMatch(said, /s3cr/);
        }
      }
    }
  }
  const inFlow = refusal('dbs: [{path: /x, replica: {url: nats://h/B, token: !s3cr}}]');
  assert.match(inFlow, /:1: an unquoted ! /);
  assert.match(
    refusal(withReplica('url: nats://h/B', 'token: &s3cr', '  x')),
    /replica\.token: an unquoted & /,
  );
});

test('signs that stand for what they are in YAML stay what they are', () => {
  const url = 'url: nats://h/B';
  for (const value of [`"!s3cr"`, `'!s3cr'`, '!!str "!s3cr"', '! "!s3cr"', '"!s3cr" # of the staging server'])
    assert.deepEqual(replicaOf(url, `token: ${value}`).nats, { token: '!s3cr' });
  assert.deepEqual(replicaOf(url, 'token: s3cr&!#x').nats, { token: 's3cr&!#x' });
  assert.deepEqual(replicaOf(url, 'token: # to be filled in').nats, {});
  const shared = replicaOf(url, 'username: &me s3cr', 'password: *me');
  assert.deepEqual(shared.nats, { username: 's3cr', password: 's3cr' });
});

test('anchors, merges, quotes and the older list of one replica are understood', () => {
  const yaml = [
    'dbs:',
    '- path: /a',
    '  replicas:',
    '  - &base',
    '    url: nats://h',
    "    password: 'it''s'",
    '    username: "u\\u0041"',
    '    bucket: A',
    '- path: /b',
    '  replica: {<<: *base, bucket: B}',
  ].join('\n');
  const replicas = parseConfig(yaml, FILE, {}).databases.map((database) => database.replica);
  assert.deepEqual(
    replicas.map(({ address }) => address.kind === 'nats' && address.bucket),
    ['A', 'B'],
  );
  for (const { nats } of replicas) assert.deepEqual(nats, { password: "it's", username: 'uA' });
});

test("Litestream's keys that cannot apply are one warning each, what is not built yet too", () => {
  const yaml = [
    'addr: ":9090"',
    'spool-max-bytes: 1GB',
    'l0-retention-check-interval: 15s',
    'verify-compaction: true',
    'mcp-addr: ":3001"',
    'logging: {level: trace, type: JSON, stderr: true}',
    'dbs:',
    '- path: /a.db',
    '  checkpoint-interval: 1m',
    '  busy-timeout: 1s',
    '  restore-if-db-not-exists: yes',
    '  replica: {path: /b, name: x}',
    '- dir: /tenants',
    '  pattern: "*.db"',
    '  replica: {url: "nats://h/B"}',
    'shutdown-sync-timeout: 30s',
  ].join('\n');
  const config = parseConfig(yaml, FILE, {});
  assert.deepEqual(
    config.warnings.map((warning) => warning.replace(/ has no effect.*/, '')).sort(),
    [
      `${FILE}:3: l0-retention-check-interval`,
      `${FILE}:4: verify-compaction`,
      `${FILE}:5: mcp-addr`,
      `${FILE}:9: dbs[0].checkpoint-interval`,
      `${FILE}:10: dbs[0].busy-timeout`,
      `${FILE}:12: dbs[0].replica.name`,
      `${FILE}:13: dbs[1].dir`,
    ].sort(),
  );
  assert.match(config.warnings.find((warning) => warning.includes('dir')) ?? '', /NOT replicated/);
  assert.deepEqual(config.addr, { host: undefined, port: 9090 });
  assert.deepEqual(config.logging, { level: 'debug', type: 'json' });
  assert.equal(config.databases.length, 1);
  assert.equal(config.databases[0].restoreIfDbNotExists, true);
  assert.equal(config.databases[0].spoolMaxBytes, 1e9);
  assert.equal(config.databases[0].stopTimeoutMs, 30_000);
});

test('levels, snapshots and retention hold for all databases; a database may have snapshots of its own', () => {
  const yaml = [
    'levels: [{interval: 1m}, {interval: 2h}]',
    'snapshot: {interval: 12h, retention: 72h}',
    'l0-retention: 10m',
    'retention: {enabled: false}',
    'dbs:',
    '- {path: /a, replica: {path: /b}}',
    '- {path: /c, snapshot: {retention: 5h}, replica: {path: /d}}',
  ].join('\n');
  const config = parseConfig(yaml, FILE, {});
  const forAll = {
    levelIntervalsMs: [60_000, 7_200_000],
    level0RetentionMs: 600_000,
    snapshotIntervalMs: 43_200_000,
    snapshotRetentionMs: 259_200_000,
    retention: false,
  };
  assert.deepEqual(config.warnings, []);
  assert.deepEqual(config.levels, forAll);
  assert.deepEqual(config.databases[0].levels, forAll);
  assert.deepEqual(config.databases[1].levels, { ...forAll, snapshotRetentionMs: 18_000_000 });
});

test('a configuration is found by flag, then environment, and must be there when named', async () => {
  assert.equal(await findConfig('a.yml', { JETLITE_CONFIG: 'b.yml' }), 'a.yml');
  assert.equal(await findConfig(undefined, { JETLITE_CONFIG: 'b.yml', LITESTREAM_CONFIG: 'c.yml' }), 'b.yml');
  assert.equal(await findConfig(undefined, { JETLITE_CONFIG: '', LITESTREAM_CONFIG: 'c.yml' }), 'c.yml');
  const folder = await mkdtemp(join(tmpdir(), 'jetlite-config-'));
  try {
    await assert.rejects(
      loadConfig(join(folder, 'no.yml'), true, {}),
      /cannot read the configuration .*does not exist/,
    );
    const file = join(folder, 'yes.yml');
    await writeFile(file, `dbs:\n- path: ${folder}/a.db\n  replica: {path: ${folder}/b}\n`);
    const config = await loadConfig(file, true, {});
    assert.equal(findDatabase(config, `${folder}/x/../a.db`)?.path, join(folder, 'a.db'));
    assert.equal(findDatabase(config, `${folder}/c.db`), undefined);
  } finally {
    await rm(folder, { recursive: true });
  }
});
