/** Runs the built program as a user would: a process of its own, its exit code and what it said. */

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export const PROGRAM = fileURLToPath(new URL('../../cli/main.js', import.meta.url));

export interface Run {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly cwd?: string;
  /** Added to an environment that names no server and no configuration. */
  readonly env?: Readonly<Record<string, string>>;
  /** The Node to run it with; default ours. */
  readonly node?: string | undefined;
}

/** The program's environment: ours, but naming no server, no configuration and no colours. */
export function cleanEnvironment(env: Readonly<Record<string, string>> = {}): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(
    ([name]) => !/^NATS_|^(JETLITE|LITESTREAM)_CONFIG$/.test(name),
  );
  return { ...Object.fromEntries(kept), NO_COLOR: '1', ...env };
}

/** Runs the program to its end. */
export function jetlite(args: readonly string[], options: RunOptions = {}): Promise<Run> {
  return startJetlite(args, options).ended;
}

export interface Started {
  readonly child: ChildProcess;
  readonly ended: Promise<Run>;
  /** What it has said so far. */
  readonly said: { readonly stdout: string; readonly stderr: string };
  /** Resolves when stderr has shown it; rejects if the program ends before. */
  shows(pattern: RegExp): Promise<void>;
}

export function startJetlite(args: readonly string[], options: RunOptions = {}): Started {
  const child = spawn(options.node ?? process.execPath, [PROGRAM, ...args], {
    cwd: options.cwd,
    env: cleanEnvironment(options.env),
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  const waiting = new Set<() => void>();
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
    for (const look of waiting) look();
  });
  const ended = new Promise<Run>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (exitCode) => resolve({ exitCode, stdout, stderr }));
  });
  const shows = (pattern: RegExp): Promise<void> =>
    new Promise((resolve, reject) => {
      const look = (): void => {
        if (!pattern.test(stderr)) return;
        waiting.delete(look);
        resolve();
      };
      waiting.add(look);
      look();
      ended.then(() => reject(new Error(`the program ended without ${pattern}: ${stderr}`)), reject);
    });
  const said = {
    get stdout() {
      return stdout;
    },
    get stderr() {
      return stderr;
    },
  };
  return { child, ended, said, shows };
}

/** An error as users must see one: nothing on stdout, one line and at most one more of advice, no stack trace. */
export function assertRefused(run: Run, exitCode: number, message: RegExp): void {
  const lines = run.stderr.trimEnd().split('\n');
  assert.match(lines[0], /^jetlite: /);
  assert.match(run.stderr, message);
  assert.ok(lines.length <= 2, run.stderr);
  for (const line of lines.slice(1)) assert.match(line, /^ {2}\S/);
  assert.doesNotMatch(run.stderr, /\n\s+at |unexpected error/);
  assert.equal(run.stdout, '');
  assert.equal(run.exitCode, exitCode, run.stderr);
}
