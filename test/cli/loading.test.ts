import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { scratchFolder } from '../support/scratch.js';
import { cleanEnvironment, PROGRAM } from './run.js';

/** Runs Node and gives the packages from which it loaded a script, with what it printed and how it ended. */
async function run(t: Parameters<typeof scratchFolder>[0], args: readonly string[]) {
  const folder = await scratchFolder(t);
  // Node writes down every script that it loaded.
  const env = cleanEnvironment({ NODE_V8_COVERAGE: folder });
  const child = spawn(process.execPath, [...args], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  }
  const [exitCode] = await once(child, 'close');
  const packages = new Set<string>();
  for (const name of await readdir(folder)) {
    const { result } = JSON.parse(await readFile(join(folder, name), 'utf8')) as {
      result: { url: string }[];
    };
    for (const { url } of result) {
      const match = /.*node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(url);
      if (match !== null) packages.add(match[1]);
    }
  }
  return { exitCode, output, packages };
}

test('version and help load neither the NATS client nor SQLite', async (t) => {
  for (const args of [['version'], ['--help'], ['restore', '--help']]) {
    const { exitCode, packages } = await run(t, [PROGRAM, ...args]);
    assert.equal(exitCode, 0);
    assert.ok(packages.has('yargs'), 'expected to see what is loaded');
    assert.ok(!packages.has('nats') && !packages.has('@sqlite.org/sqlite-wasm'), [...packages].join(', '));
  }
});

test('importing the library starts nothing, prints nothing and loads no SQLite', async (t) => {
  const library = new URL('../../lib/index.js', import.meta.url).href;
  // That it ends by itself shows that nothing was started.
  const script = `const library = await import(${JSON.stringify(library)});
    console.log(['backup', 'replicate', 'restore', 'verify'].map((name) => typeof library[name]).join());`;
  const { exitCode, output, packages } = await run(t, ['--input-type=module', '-e', script]);
  assert.equal(exitCode, 0);
  assert.equal(output, 'function,function,function,function\n');
  assert.ok(!packages.has('@sqlite.org/sqlite-wasm') && !packages.has('nats'), [...packages].join(', '));
});
