/**
 * Makes a checkout runnable: installs the locked packages and compiles, each only if it has to be done.
 * Built-ins only, since it runs before anything is installed. When nothing changed it says nothing.
 */

import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

export const root = fileURLToPath(new URL('..', import.meta.url));

const sourceFolders = ['lib', 'cli', 'test', 'scripts'];
const dist = join(root, 'dist');
/** Its time is the moment the last good build began. */
const builtStamp = join(dist, '.built');

/** Installs and compiles what is out of date; throws an error of one line (after the tool's own output). */
export function setup() {
  requireNode();
  if (!installed()) {
    // Without the log level npm warns that sqlite-wasm asks for Node 22; what is used of it runs on 20 too.
    step('install', 'npm ci', () => npm(['ci', '--include=dev', '--loglevel=error']));
  }
  if (!built()) {
    step('build', 'tsc', build);
  }
}

/** Every file below `folder` whose name ends in `ending`, as absolute paths. */
export function filesBelow(folder, ending) {
  if (!existsSync(folder)) return [];
  const found = [];
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) found.push(...filesBelow(path, ending));
    else if (entry.name.endsWith(ending)) found.push(path);
  }
  return found;
}

function requireNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < 20 || (major === 20 && minor < 19)) {
    throw new Error(`Jetlite needs Node 20.19 or newer; this is ${process.versions.node}`);
  }
}

/**
 * Whether node_modules holds what the lock file names. Contents are compared, not times: a checkout gives
 * every file a new time, and running `npm ci` for that would make each switch of branches slow.
 */
function installed() {
  const locked = readPackages('package-lock.json');
  const present = readPackages('node_modules/.package-lock.json');
  if (present === undefined) return false;
  for (const [path, wanted] of Object.entries(locked)) {
    if (path === '' || (wanted.optional && !meantForThisMachine(wanted))) continue;
    if (present[path]?.version !== wanted.version || !existsSync(join(root, path))) return false;
  }
  return Object.keys(present).every((path) => path in locked);
}

function readPackages(path) {
  try {
    return JSON.parse(readFileSync(join(root, path), 'utf8')).packages;
  } catch {
    return undefined;
  }
}

function meantForThisMachine({ os, cpu, libc }) {
  // Which C library this is cannot be asked cheaply, and a package tied to one has a twin without.
  return os?.includes(process.platform) && cpu?.includes(process.arch) && libc === undefined;
}

function built() {
  if (!existsSync(builtStamp)) return false;
  const since = statSync(builtStamp).mtimeMs;
  const inputs = ['tsconfig.json', 'package-lock.json'].map((name) => join(root, name));
  for (const folder of sourceFolders) inputs.push(...filesBelow(join(root, folder), '.ts'));
  return inputs.every((path) => statSync(path).mtimeMs <= since) && orphans().length === 0;
}

function build() {
  const began = new Date();
  run(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', 'tsconfig.json']);
  for (const path of orphans()) rmSync(path);
  writeFileSync(builtStamp, '');
  utimesSync(builtStamp, began, began);
}

/** Compiled files whose source is gone: the compiler leaves them, and a test that was removed would still run. */
function orphans() {
  const found = [];
  for (const folder of sourceFolders) {
    for (const ending of ['.js', '.js.map', '.d.ts']) {
      for (const path of filesBelow(join(dist, folder), ending)) {
        const source = join(root, relative(dist, path).slice(0, -ending.length));
        if (!existsSync(`${source}.ts`)) found.push(path);
      }
    }
  }
  return found;
}

function npm(args) {
  // npm names itself to the scripts it starts; started by hand, the one on PATH is meant.
  const self = process.env.npm_execpath;
  if (self?.endsWith('.js')) run(process.execPath, [self, ...args]);
  else run(process.platform === 'win32' ? 'npm.cmd' : 'npm', args);
}

/** Runs a tool to its end; what it prints is shown only if it fails. */
function run(program, args) {
  const done = spawnSync(program, args, {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    shell: program.endsWith('.cmd'),
  });
  if (done.error) throw new Error(`cannot run ${program}: ${done.error.message}`);
  if (done.status !== 0) {
    process.stderr.write(done.stdout + done.stderr);
    throw new Error(
      `${args.find((arg) => !arg.includes('/')) ?? program} failed (exit ${done.status ?? done.signal})`,
    );
  }
}

/** One line on stderr a step: stdout belongs to the program that is started afterwards. */
function step(name, what, work) {
  const began = Date.now();
  work();
  process.stderr.write(`${name}: ${what} (${((Date.now() - began) / 1000).toFixed(1)} s)\n`);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  try {
    setup();
  } catch (error) {
    process.stderr.write(`setup: ${error.message}\n`);
    process.exitCode = 1;
  }
}
