/** The child of guard.ts: two connections to a live copy. Never ends by itself other than by a kill. */

import { createRequire } from 'node:module';
import type { FromGuard, ToGuard } from './guard.js';

/** What of node:sqlite is used; its types come with later ones of Node. */
interface Connection {
  exec(sql: string): void;
  prepare(sql: string): { get(): Record<string, unknown> };
}

const RETRY_MS = 5;
/** For a reader that rebuilds the index meanwhile. */
const TURN_BUSY_MS = 10_000;

const path = process.argv[2];
const { DatabaseSync } = createRequire(import.meta.url)('node:sqlite') as {
  DatabaseSync: new (path: string) => Connection;
};

const connections: Connection[] = [];
let current = 0;
let reading = false;

function connect(): void {
  while (connections.length < 2) {
    const connection = new DatabaseSync(path);
    connection.exec(`PRAGMA busy_timeout = ${TURN_BUSY_MS}; PRAGMA wal_autocheckpoint = 0`);
    connections.push(connection);
  }
}

function turn(): void {
  connect();
  const next = 1 - current;
  connections[next].exec('BEGIN');
  connections[next].prepare('PRAGMA user_version').get();
  if (reading) connections[current].exec('COMMIT');
  current = next;
  reading = true;
}

/** The connections stay, and with them the lock that keeps others from being the last to close. */
function checkpoint(patienceMs: number): boolean {
  connect();
  if (reading) connections[current].exec('COMMIT');
  reading = false;
  const connection = connections[current];
  connection.exec('PRAGMA busy_timeout = 0');
  const until = performance.now() + patienceMs;
  const pause = new Int32Array(new SharedArrayBuffer(4));
  let done = false;
  for (;;) {
    done = connection.prepare('PRAGMA wal_checkpoint(TRUNCATE)').get().busy === 0;
    if (done || performance.now() >= until) break;
    Atomics.wait(pause, 0, 0, RETRY_MS);
  }
  connection.exec(`PRAGMA busy_timeout = ${TURN_BUSY_MS}`);
  return done;
}

function obey(wish: ToGuard): FromGuard {
  try {
    if (wish.do === 'checkpoint') return { done: checkpoint(wish.patienceMs) };
    turn();
    return { done: true };
  } catch (error) {
    return { failed: (error as Error).message };
  }
}

const end = (): void => {
  process.kill(process.pid, 'SIGKILL');
};

process.on('message', (wish: ToGuard) => process.send?.(obey(wish)));
process.on('disconnect', end);
// A terminal's Ctrl-C reaches the whole group; the follower says when to stop.
process.on('SIGINT', () => undefined);
process.on('SIGTERM', () => undefined);
