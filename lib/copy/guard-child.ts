/**
 * The child of guard.ts: two connections to a live copy.
 *
 * 1. It never ends by itself other than by a kill: whatever goes wrong, an exit would close the connections.
 * 2. It claims the copy before it opens it, and keeps the claim until it is gone: who follows the copy next waits for that
 *    (awaitGuardsEnd), so that no checkpoint is ever under way while another follower appends.
 */

import { createRequire } from 'node:module';
import { setTimeout as delay } from 'node:timers/promises';
import type { FromGuard, ToGuard } from './guard.js';
import { claimAsGuard } from './guard-claim.js';

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

const follower = process.ppid;
const connections: Connection[] = [];
let current = 0;
let reading = false;

async function connect(): Promise<void> {
  // One of a follower that was killed may be going just now.
  if (connections.length === 0) while (!(await claimAsGuard(path))) await delay(RETRY_MS);
  while (connections.length < 2) {
    const connection = new DatabaseSync(path);
    connection.exec(`PRAGMA busy_timeout = ${TURN_BUSY_MS}; PRAGMA wal_autocheckpoint = 0`);
    connections.push(connection);
  }
}

async function turn(): Promise<void> {
  await connect();
  const next = 1 - current;
  connections[next].exec('BEGIN');
  connections[next].prepare('PRAGMA user_version').get();
  if (reading) connections[current].exec('COMMIT');
  current = next;
  reading = true;
}

/** The connections stay, and with them the lock that keeps others from being the last to close. */
function checkpoint(patienceMs: number): boolean {
  if (!reading) throw new Error('a checkpoint was asked for before a turn');
  connections[current].exec('COMMIT');
  reading = false;
  const connection = connections[current];
  connection.exec('PRAGMA busy_timeout = 0');
  const until = performance.now() + patienceMs;
  const pause = new Int32Array(new SharedArrayBuffer(4));
  let done = false;
  for (;;) {
    done = connection.prepare('PRAGMA wal_checkpoint(TRUNCATE)').get().busy === 0;
    if (done || performance.now() >= until) break;
    if (process.ppid !== follower) end();
    Atomics.wait(pause, 0, 0, RETRY_MS);
  }
  connection.exec(`PRAGMA busy_timeout = ${TURN_BUSY_MS}`);
  return done;
}

async function obey(wish: ToGuard): Promise<FromGuard> {
  try {
    if (wish.do === 'checkpoint') return { done: checkpoint(wish.patienceMs) };
    await turn();
    return { done: true };
  } catch (error) {
    return { failed: (error as Error).message };
  }
}

function end(): void {
  process.kill(process.pid, 'SIGKILL');
}

process.on('message', async (wish: ToGuard) => {
  const answer = await obey(wish);
  // Who does not hear the answer is gone.
  if (process.connected) process.send?.(answer, (error: Error | null) => error && end());
  else end();
});
process.on('disconnect', end);
process.on('error', end);
process.on('uncaughtException', end);
// A terminal's Ctrl-C reaches the whole group; the follower says when to stop.
process.on('SIGINT', () => undefined);
process.on('SIGTERM', () => undefined);
