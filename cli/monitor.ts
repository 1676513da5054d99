/**
 * `--addr`: what a monitoring system asks a running `replicate`, over HTTP. `/metrics` for Prometheus; `/healthz` answers
 * 200 while every database is being replicated or waited for, and 503 once one has failed. Nothing can be changed here.
 */

import { createServer, type Server } from 'node:http';
import { JetliteError } from '../lib/errors.js';
import type { ReplicateEvent } from '../lib/jobs/session/replicate-event.js';
import type { ListenAddress } from './listen-address.js';
import { Metrics } from './metrics.js';

export type DatabaseHealth = 'starting' | 'replicating' | 'waiting' | 'failed';

/** What is known of a database; the first that holds is its health, or else it is just starting. */
interface Known {
  hasFailed?: boolean;
  isAway?: boolean;
  isMissing?: boolean;
  hasBegun?: boolean;
}

/** What an event shows of its database. */
const SHOWN: Partial<Record<ReplicateEvent['type'], Known>> = {
  ready: { hasBegun: true, isAway: false, isMissing: false },
  put: { hasBegun: true },
  retry: { isAway: true },
  away: { isAway: true },
  back: { isAway: false },
  reached: { isAway: false },
  missing: { isMissing: true },
  found: { isMissing: false },
};

function healthOf({ hasFailed, isAway, isMissing, hasBegun }: Known): DatabaseHealth {
  if (hasFailed) return 'failed';
  if (isAway || isMissing) return 'waiting';
  return hasBegun ? 'replicating' : 'starting';
}

export class Monitor {
  readonly #metrics: Metrics;
  readonly #known = new Map<string, Known>();
  readonly #server: Server;

  private constructor(metrics: Metrics, databases: readonly string[]) {
    this.#metrics = metrics;
    for (const database of databases) {
      metrics.add(database);
      this.#known.set(database, {});
    }
    this.#server = createServer((request, response) => {
      const path = request.url?.split('?')[0];
      if (request.method !== 'GET' && request.method !== 'HEAD') {
        response.writeHead(405, { allow: 'GET, HEAD' }).end();
      } else if (path === '/metrics') {
        void metrics.text().then((text) => {
          response.writeHead(200, { 'content-type': metrics.contentType }).end(text);
        });
      } else if (path === '/healthz') {
        const health = [...this.#known].map(([database, known]) => [database, healthOf(known)] as const);
        const failed = health.some(([, one]) => one === 'failed');
        const body = { healthy: !failed, databases: Object.fromEntries(health) };
        response
          .writeHead(failed ? 503 : 200, { 'content-type': 'application/json' })
          .end(`${JSON.stringify(body)}\n`);
      } else response.writeHead(404).end();
    });
  }

  /** Listens; resolves once it does. Throws USAGE if the address cannot be had. */
  static async start(address: ListenAddress, databases: readonly string[]): Promise<Monitor> {
    const monitor = new Monitor(new Metrics(), databases);
    await new Promise<void>((resolve, reject) => {
      monitor.#server.once('error', (error: NodeJS.ErrnoException) => {
        const where = `${address.host ?? '*'}:${address.port}`;
        const why = error.code === 'EADDRINUSE' ? 'another program listens there' : error.message;
        reject(
          new JetliteError('USAGE', `cannot listen on ${where} for metrics: ${why}`, {
            hint: 'Give another address with --addr, or addr in the configuration.',
            cause: error,
          }),
        );
      });
      monitor.#server.listen(address.port, address.host, () => {
        monitor.#server.unref();
        resolve();
      });
    });
    return monitor;
  }

  /** `http://host:port` as it is reached from this machine. */
  get url(): string {
    const bound = this.#server.address();
    if (bound === null || typeof bound === 'string') return '';
    const everywhere = bound.address === '::' || bound.address === '0.0.0.0';
    const host = everywhere ? 'localhost' : bound.family === 'IPv6' ? `[${bound.address}]` : bound.address;
    return `http://${host}:${bound.port}`;
  }

  take(database: string, event: ReplicateEvent): void {
    this.#metrics.take(database, event);
    const shown = SHOWN[event.type];
    if (shown !== undefined) this.#learn(database, shown);
  }

  fail(database: string): void {
    this.#metrics.fail(database);
    this.#learn(database, { hasFailed: true });
  }

  #learn(database: string, shown: Known): void {
    const known = { ...this.#known.get(database), ...shown };
    this.#known.set(database, known);
    this.#metrics.setAway(database, known.isAway === true);
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}
