/**
 * `npm test [-- filter... --node-option...]`: sets the checkout up, brings the peers and runs the tests, or
 * those whose path contains one of the filters. `--long` asks them for their big numbers (JETLITE_LONG=1).
 * Files named `.alone.test` come last, one at a time: what they show holds where there is a core to follow a writer with.
 * Ends with Node's counts and the runner's exit code.
 */

import { spawn } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { join, relative } from 'node:path';
import { bringPeers } from './peers.mjs';
import { filesBelow, root, setup } from './setup.mjs';

const asked = process.argv.slice(2);
if (asked.includes('--long')) process.env.JETLITE_LONG = '1';
const long = process.env.JETLITE_LONG === '1';
/** For one file: a test that hangs must end the run some day. */
const fileTimeoutMs = long ? 4 * 3_600_000 : 300_000;
/** A file runs several programs at a time itself; more files than cores would only slow each other. */
const manyFiles = Math.max(2, availableParallelism());

try {
  setup();
  bringPeers();
  const options = asked.filter((arg) => arg.startsWith('-') && arg !== '--long');
  const filters = asked.filter((arg) => !arg.startsWith('-'));
  const files = testFiles(filters);
  const alone = files.filter((file) => file.endsWith('.alone.test.js'));
  const together = files.filter((file) => !alone.includes(file));
  const codes = [];
  if (together.length > 0) codes.push(await runTests(together, options, manyFiles));
  if (alone.length > 0) codes.push(await runTests(alone, options, 1));
  process.exitCode = Math.max(...codes);
} catch (error) {
  process.stderr.write(`test: ${error.message}\n`);
  process.exitCode = 1;
}

function testFiles(filters) {
  const sources = filesBelow(join(root, 'test'), '.test.ts').map((path) => relative(root, path));
  const chosen = sources.filter(
    (path) => filters.length === 0 || filters.some((filter) => path.includes(filter)),
  );
  if (chosen.length === 0) throw new Error(`no test file's path contains ${filters.join(' or ')}`);
  return chosen.sort().map((path) => join('dist', `${path.slice(0, -3)}.js`));
}

/** Resolves with the runner's exit code, when nothing that the tests started is left. */
function runTests(files, options, filesAtOnce) {
  const fixed = [
    '--test',
    '--enable-source-maps',
    `--test-concurrency=${filesAtOnce}`,
    `--test-timeout=${fileTimeoutMs}`,
    `--test-reporter=${new URL('report-tests.mjs', import.meta.url).href}`,
  ];
  // A group of its own: a file that was ended for its time leaves servers and writers, and they go with it.
  const runner = spawn(process.execPath, [...fixed, ...options, ...files], {
    cwd: root,
    stdio: 'inherit',
    detached: process.platform !== 'win32',
  });
  const stop = (signal) => runner.kill(signal);
  process.on('SIGINT', stop).on('SIGTERM', stop);
  return new Promise((resolve, reject) => {
    runner.on('error', reject);
    runner.on('exit', (code) => {
      if (process.platform !== 'win32' && endGroup(runner.pid)) {
        process.stderr.write('test: ended processes that tests had left behind\n');
      }
      resolve(code ?? 1);
    });
  });
}

function endGroup(pid) {
  try {
    process.kill(-pid, 'SIGKILL');
    return true;
  } catch {
    return false;
  }
}
