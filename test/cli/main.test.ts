import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { test } from 'node:test';
import { goFlagsToLong } from '../../cli/arguments.js';
import { scratchFolder } from '../support/scratch.js';
import { jetlite, PROGRAM } from './run.js';

test('version goes to stdout and is the same however it is asked for', async () => {
  for (const args of [['version'], ['--version'], ['-version']]) {
    const run = await jetlite(args);
    assert.match(run.stdout, /^jetlite \d+\.\d+\.\d+\n$/);
    assert.equal(run.stderr, '');
    assert.equal(run.exitCode, 0);
  }
  assert.match(
    (JSON.parse((await jetlite(['version', '--json'])).stdout) as { version: string }).version,
    /^\d/,
  );
});

test('help is a result and no command is a mistake', async () => {
  const help = await jetlite(['--help']);
  assert.equal(help.exitCode, 0);
  assert.match(help.stdout, /Commands:/);
  const nothing = await jetlite([]);
  assert.equal(nothing.exitCode, 2);
  assert.equal(nothing.stdout, '');
  assert.match(nothing.stderr, /Commands:/);
});

test('what the parser does not know is named, with exit code 2 and no stack trace', async () => {
  const cases: [string[], RegExp][] = [
    [['frobnicate'], /^jetlite: Unknown command: frobnicate\n {2}See: jetlite --help\n$/],
    [['version', '--foo-bar'], /^jetlite: Unknown option: foo-bar\n/],
    [['version', '--foo-bar', '--a-b'], /^jetlite: Unknown options: foo-bar, a-b\n/],
    [['version', '--bar'], /^jetlite: Unknown option: bar\n {2}See: jetlite version --help\n$/],
    [['version', '-bar'], /^jetlite: Unknown option: bar\n {2}See: jetlite version --help\n$/],
    [['version', 'extra'], /^jetlite: Unexpected argument: extra\n/],
    [['version', '--log-level'], /^jetlite: A value is missing after the option log-level\n/],
    [['restore', 'x', '-o', 'a', '-o', 'b'], /^jetlite: (-o|--output) was given 2 times/],
    [
      ['version', '--log-level', 'loud'],
      /^jetlite: --log-level: expected debug, info, warn or error, found "loud"\n$/,
    ],
    [
      ['version', '--log-level=info', '-log-level=warn'],
      /^jetlite: --log-level was given 2 times, expected once\n$/,
    ],
  ];
  for (const [args, message] of cases) {
    const run = await jetlite(args);
    assert.match(run.stderr, message);
    assert.equal(run.stdout, '');
    assert.equal(run.exitCode, 2, args.join(' '));
  }
});

test("Go's single dash means two, but not for one letter, a value, a path or after --", () => {
  const args = ['-o', 'x.db', '-if-replica-exists', '-txid=2f', '--json', '-5', '-', '--', '-quiet'];
  const long = ['-o', 'x.db', '--if-replica-exists', '--txid=2f', '--json', '-5', '-', '--', '-quiet'];
  assert.deepEqual(goFlagsToLong(args), long);
});

test('a reader that leaves early is no failure', async () => {
  const child = spawn(process.execPath, [PROGRAM, '--help'], { stdio: ['ignore', 'pipe', 'pipe'] });
  child.stdout.destroy();
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const [exitCode] = await once(child, 'close');
  assert.equal(stderr, '');
  assert.equal(exitCode, 0);
});

test('an error that no command saw coming is one line that asks for a report', async (t) => {
  const folder = await scratchFolder(t);
  // Thrown from a timer of its own while the command waits for its database.
  const bomb = `data:text/javascript,setTimeout(() => { throw new TypeError('boom'); }, 4000)`;
  const env = { NODE_OPTIONS: `--import=${encodeURI(bomb)}` };
  const run = await jetlite(['replicate', join(folder, 'a.db'), join(folder, 'replica'), '--quiet'], { env });
  assert.equal(
    run.stderr,
    'jetlite: unexpected error, please report it (with --log-level debug for details): TypeError: boom\n',
  );
  assert.equal(run.exitCode, 1);
});
