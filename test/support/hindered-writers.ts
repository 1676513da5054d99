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

/** Is killed when it syncs for the first time: its commit frame is written, and not published. */
export function killedAtSync(t: TestContext, path: string): Application | undefined {
  return hindered(t, path, ['-e', 'inject=fsync,fdatasync:signal=KILL:when=1']);
}

/** Stands still for seconds when it writes to the WAL for the first time: a restart is published, and nothing under it. */
export function haltedAtWal(t: TestContext, path: string): Application | undefined {
  return hindered(t, path, ['-P', `${path}-wal`, '-e', 'inject=pwrite64:delay_enter=3s:when=1']);
}
