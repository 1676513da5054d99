/** Applications that strace stops or kills at one of their system calls. Undefined without strace: the test is skipped. */
import type { TestContext } from 'node:test';
import { Application } from './application.js';
import { peer } from './peers.js';

function hindered(t: TestContext, path: string, how: readonly string[]): Application | undefined {
  const strace = peer(t, 'strace');
  if (strace === undefined) return undefined;
  // -D: killing it kills the application, not the one that watches it.
  return Application.start(t, path, [strace, '-D', '-f', '-qq', '-o', '/dev/null', ...how]);
}

/**
 * Is killed when it syncs for the first time: its commit frame is written, and not published. With the first frame of a WAL
 * that is so at the third: before it the WAL's header and the folder are synced.
 */
export function killedAtSync(t: TestContext, path: string, which = 1): Application | undefined {
  return hindered(t, path, ['-e', `inject=fsync,fdatasync:signal=KILL:when=${which}`]);
}

/** Stands still for seconds when it writes to the WAL for the first time: a restart is published, and nothing under it. */
export function haltedAtWal(t: TestContext, path: string): Application | undefined {
  return hindered(t, path, ['-P', `${path}-wal`, '-e', 'inject=pwrite64:delay_enter=3s:when=1']);
}
