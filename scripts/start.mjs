/**
 * `npm start` shows Jetlite's work on real things; `npm start -- <arguments>` is the program `jetlite`. Both set
 * the checkout up first.
 */

import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { join } from 'node:path';
import { root, setup } from './setup.mjs';

const program = join(root, 'dist', 'cli', 'main.js');
const asked = process.argv.slice(2);

try {
  setup();
  process.exitCode = asked.length === 0 ? await demonstrate() : await runProgram(asked);
} catch (error) {
  process.stderr.write(`start: ${error.message}\n`);
  process.exitCode = 1;
}

async function demonstrate() {
  const { demonstration } = await import('./demonstration.mjs');
  return demonstration(program);
}

/** Runs `jetlite` where the user stands (npm itself goes to the package's folder) and resolves with its exit code. */
function runProgram(args) {
  const child = spawn(process.execPath, [program, ...args], {
    cwd: process.env.INIT_CWD ?? process.cwd(),
    stdio: 'inherit',
  });
  // Ctrl-C reaches both; a signal to this process alone is passed on, and the program decides when it ends.
  process.on('SIGINT', () => {}).on('SIGTERM', () => child.kill('SIGTERM'));
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => resolve(code ?? 128 + constants.signals[signal]));
  });
}
