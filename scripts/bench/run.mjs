/**
 * `npm run bench` lists the benchmarks; `npm run bench -- NAME [options]` runs one with its options,
 * `npm run bench -- all` every one, in turn, since they would disturb each other.
 */

import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { bringPeers } from '../peers.mjs';
import { filesBelow, root, setup } from '../setup.mjs';

const [wish, ...options] = process.argv.slice(2);
const benches = findBenches();

if (wish === undefined) {
  for (const { name, about } of benches) process.stdout.write(`${name.padEnd(12)} ${about}\n`);
} else {
  try {
    setup();
    bringPeers();
    process.exitCode = run(chosen());
  } catch (error) {
    process.stderr.write(`bench: ${error.message}\n`);
    process.exitCode = 1;
  }
}

/** Files that open with how to run them; the others hold what these share. */
function findBenches() {
  const found = [];
  for (const path of filesBelow(join(root, 'scripts', 'bench'), '.ts').sort()) {
    const name = basename(path, '.ts');
    const [opening] = readFileSync(path, 'utf8').split('*/', 1);
    if (!opening.includes(`dist/scripts/bench/${name}.js`)) continue;
    const text = opening.replace(/^\s*\/?\*+ ?/gm, '').trim();
    found.push({ name, about: text.split(/(?<=[.;:])\s/, 1)[0].replaceAll('\n', ' ') });
  }
  return found;
}

function chosen() {
  const names = wish === 'all' ? benches.map(({ name }) => name) : [wish];
  if (!benches.some(({ name }) => names.includes(name))) {
    throw new Error(`there is no benchmark ${wish}; npm run bench lists them`);
  }
  return names;
}

/** Runs them to the end whatever happens to one; 0 if all ended well. */
function run(names) {
  let exitCode = 0;
  for (const name of names) {
    process.stdout.write(`\n== ${name}\n`);
    const program = join(root, 'dist', 'scripts', 'bench', `${name}.js`);
    const { status } = spawnSync(process.execPath, [program, ...options], { stdio: 'inherit' });
    if (status !== 0) exitCode = 1;
  }
  return exitCode;
}
