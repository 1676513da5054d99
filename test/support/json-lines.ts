/** A child process that prints JSON lines on stdout and reads commands, a line each, from stdin. */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';

export type JsonLine = Record<string, unknown>;

export class JsonLinesChild {
  /** Resolves when the process has ended, with its exit code or the signal that ended it. Never rejects. */
  readonly ended: Promise<number | NodeJS.Signals>;
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #lines: JsonLine[] = [];
  readonly #waiting: { resolve(line: JsonLine): void; reject(error: Error): void }[] = [];
  readonly #name: string;
  #errorText = '';
  #over = false;

  /** `onLine` sees every line as it comes; a line it returns true for is not kept for `next`. */
  constructor(
    command: string,
    args: readonly string[],
    options: { cwd?: string; env?: NodeJS.ProcessEnv; onLine?: (line: JsonLine) => boolean } = {},
  ) {
    this.#name = [command, ...args].join(' ').slice(0, 200);
    this.#child = spawn(command, args, {
      stdio: ['pipe', 'pipe', 'pipe'],
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      ...(options.env === undefined ? {} : { env: options.env }),
    });
    this.#child.stdin.on('error', () => {}); // A killed child's pipe; `ended` tells.
    this.#child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#errorText = (this.#errorText + text).slice(-4000);
    });
    createInterface({ input: this.#child.stdout }).on('line', (text) => {
      const line = JSON.parse(text) as JsonLine;
      if (options.onLine?.(line)) return;
      const waiting = this.#waiting.shift();
      if (waiting) waiting.resolve(line);
      else this.#lines.push(line);
    });
    this.ended = new Promise((resolve) => {
      const end = (outcome: number | NodeJS.Signals): void => {
        this.#over = true;
        for (const waiting of this.#waiting.splice(0)) waiting.reject(this.#endedError());
        resolve(outcome);
      };
      this.#child.on('error', (error) => {
        this.#errorText += error.message;
        end(-1);
      });
      this.#child.on('close', (code, signal) => end(signal ?? code ?? -1));
    });
  }

  get pid(): number {
    return this.#child.pid ?? -1;
  }

  /** What the child has written to stderr (its last 4,000 characters). */
  get errorText(): string {
    return this.#errorText;
  }

  /** The next line that nobody has taken; rejects if the process ends first. */
  next(): Promise<JsonLine> {
    const line = this.#lines.shift();
    if (line) return Promise.resolve(line);
    if (this.#over) return Promise.reject(this.#endedError());
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  /** Sends a command and resolves with the next line. */
  ask(command: string): Promise<JsonLine> {
    const answer = this.next();
    this.#child.stdin.write(`${command}\n`);
    return answer;
  }

  endInput(): void {
    this.#child.stdin.end();
  }

  /** Sends a signal to the process, unless it has ended. */
  signal(signal: NodeJS.Signals): void {
    if (!this.#over) this.#child.kill(signal);
  }

  /** kill -9, and waits until it is gone. */
  async kill(): Promise<void> {
    this.signal('SIGKILL');
    await this.ended;
  }

  #endedError(): Error {
    return new Error(`ended without an answer: ${this.#name}\n${this.#errorText}`);
  }
}
