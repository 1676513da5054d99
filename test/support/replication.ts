/** `replicate` in a process of its own (replicate-driver.ts): what tests stop, kill and listen to. */
import { readFileSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import type { ReplicateEvent } from '../../lib/jobs/replicate.js';
import type { UpkeepSettings } from '../../lib/jobs/tidy/tidy.js';
import type { NatsOptions } from '../../lib/replica/nats/connect.js';
import { type JsonLine, JsonLinesChild } from './json-lines.js';

export interface ReplicationOptions {
  readonly database: string;
  readonly replica: string;
  readonly stateDir?: string;
  readonly syncIntervalMs?: number;
  readonly once?: boolean;
  readonly fileEvents?: boolean;
  readonly pollIntervalMs?: number;
  readonly auditIntervalMs?: number;
  /** Off unless given. */
  readonly levels?: UpkeepSettings;
  readonly spoolMaxBytes?: number;
  /** Two minutes unless given. */
  readonly stopTimeoutMs?: number;
  readonly nats?: NatsOptions;
}

export const DRIVER = fileURLToPath(new URL('./replicate-driver.js', import.meta.url));

/** The gaps that a replication met: commits it could not follow, and took in by comparing pages. */
export function gapsIn(replication: Replication): string[] {
  return replication.events.filter((event) => event.type === 'gap').map((event) => event.message);
}

export class Replication {
  /** All events so far. */
  readonly events: ReplicateEvent[] = [];
  readonly #happenedMs = new WeakMap<ReplicateEvent, number>();
  readonly #child: JsonLinesChild;
  readonly #startedMs = performance.now();
  readonly #waiting: { wanted(event: ReplicateEvent): boolean; found(): void }[] = [];

  private constructor(options: ReplicationOptions, command: readonly string[], env?: NodeJS.ProcessEnv) {
    const [program, ...args] = [...command, process.execPath, DRIVER, JSON.stringify(options)];
    this.#child = new JsonLinesChild(program!, args, {
      ...(env === undefined ? {} : { env: { ...process.env, ...env } }),
      onLine: (line) => this.#hear(line),
    });
  }

  /** Starts it; `through` is a command to run it under (strace, setpriv). */
  static async start(
    options: ReplicationOptions,
    through: readonly string[] = [],
    env?: NodeJS.ProcessEnv,
  ): Promise<Replication> {
    const replication = new Replication(options, through, env);
    await replication.#child.next();
    return replication;
  }

  get pid(): number {
    return this.#child.pid;
  }

  get ended(): Promise<number | NodeJS.Signals> {
    return this.#child.ended;
  }

  /** Resolves at the first event, past ones included, that is wanted; rejects if the process ends without one. */
  async waitFor(wanted: (event: ReplicateEvent) => boolean): Promise<void> {
    if (this.events.some(wanted)) return;
    const found = new Promise<void>((resolve) => this.#waiting.push({ wanted, found: resolve }));
    const over = this.#child.ended.then((outcome) => {
      throw new Error(`replicate ended (${outcome}) before the event came\n${this.#child.errorText}`);
    });
    over.catch(() => {}); // It ends some time after the event, too.
    await Promise.race([found, over]);
  }

  /** The first state it looked at is known, and captured if it was new. */
  ready(): Promise<void> {
    return this.waitFor((event) => event.type === 'ready');
  }

  /** The first LTX file of this run is durable. */
  firstPut(): Promise<void> {
    return this.waitFor((event) => event.type === 'put');
  }

  /** One more LTX file than until now is durable. */
  nextPut(): Promise<void> {
    const known = new Set(this.events);
    return this.waitFor((event) => event.type === 'put' && !known.has(event));
  }

  /** When the process told of an event, by its own clock: milliseconds since the epoch, with fractions. */
  happenedMs(event: ReplicateEvent): number {
    return this.#happenedMs.get(event)!;
  }

  /** Resolves at the next event of that type. */
  next(type: ReplicateEvent['type']): Promise<void> {
    const known = this.events.length;
    return this.waitFor((event) => event.type === type && this.events.indexOf(event, known) !== -1);
  }

  /**
   * The share of its life in which the process was ready to run and got no processor, 0 to 1; undefined where the kernel
   * does not say. What it missed while others had the processor is not its fault.
   */
  starvation(): number | undefined {
    let stat: string;
    try {
      stat = readFileSync(`/proc/${this.pid}/task/${this.pid}/schedstat`, 'latin1');
    } catch {
      return undefined;
    }
    const waitedMs = Number(stat.split(' ')[1]) / 1e6;
    return waitedMs / (performance.now() - this.#startedMs);
  }

  /** Stops it cleanly: it has replicated everything that was committed before. Throws if it failed. */
  async stop(): Promise<JsonLine> {
    this.#child.endInput();
    return this.result();
  }

  /** What it returned. Throws if it failed. */
  async result(): Promise<JsonLine> {
    const line = await this.#child.next();
    await this.#child.ended;
    if (!('ended' in line)) throw new Error(`replicate failed: ${JSON.stringify(line)}`);
    return line.ended as JsonLine;
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.signal(signal);
  }

  /** kill -9, at whatever it is doing. */
  kill(): Promise<void> {
    return this.#child.kill();
  }

  #hear(line: JsonLine): boolean {
    if (!('event' in line)) return false;
    const event = line.event as ReplicateEvent;
    this.events.push(event);
    this.#happenedMs.set(event, line.atMs as number);
    for (const [index, waiting] of [...this.#waiting.entries()].reverse()) {
      if (!waiting.wanted(event)) continue;
      this.#waiting.splice(index, 1);
      waiting.found();
    }
    return true;
  }
}
