/**
 * Stands between capture and the system, so that a test decides what happens between any two of its reads: clock, file
 * times, events and locks are the test's own; the bytes are in real files. For one test file's process.
 */
import { EventEmitter } from 'node:events';
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import timers from 'node:timers/promises';
import { deviceName } from '../../lib/capture/locks.js';

/** How fine file times are, ms. */
const TICK_MS = 4;
const EPOCH_MS = 1e12;

type OnEvent = (type: string, name: string) => void;

const system = {
  fstat: fs.fstatSync,
  stat: fs.statSync,
  read: fs.readSync,
  readFile: fs.readFileSync,
  immediate: timers.setImmediate,
};
const times = new Map<bigint, { m: bigint; c: bigint }>();
let nowMs = EPOCH_MS;
let watchers: OnEvent[] = [];
let isBetween = false;

export const world = {
  /** Is called before each read and each look at a file's times, and while capture waits. */
  between: undefined as (() => void) | undefined,
  /** Is called before time passes in which the system would be done with any call. */
  pause: undefined as (() => void) | undefined,
  /** The lines of /proc/locks. */
  locks: (): string => '',

  begin(): void {
    nowMs = EPOCH_MS;
    times.clear();
    watchers = [];
  },

  pass(ms: number): void {
    if (ms > 1) world.pause?.();
    nowMs += ms;
  },

  /** The file at `path` was written, or only its inode was. An event follows. */
  touch(path: string, { written = true, event = 'change' } = {}): void {
    const { ino } = inodeOf(path);
    const tick = BigInt(Math.floor(nowMs / TICK_MS) * TICK_MS) * 1_000_000n;
    times.set(ino, { m: written ? tick : (times.get(ino)?.m ?? tick), c: tick });
    const name = path.slice(path.lastIndexOf('/') + 1);
    const told = [...watchers];
    setImmediate(() => {
      for (const watcher of told) if (watchers.includes(watcher)) watcher(event, name);
    });
  },

  lockLine(path: string, kind: 'READ' | 'WRITE', first: number, last: number): string {
    if (!fs.existsSync(path)) return '';
    const { dev, ino } = inodeOf(path);
    return `1: POSIX  ADVISORY  ${kind} 77 ${deviceName(dev)}:${ino} ${first} ${last}\n`;
  },
};

function inodeOf(path: string): fs.BigIntStats {
  return system.stat(path, { bigint: true });
}

function between(): void {
  nowMs += 0.01;
  if (isBetween) return;
  isBetween = true;
  try {
    world.between?.();
  } finally {
    isBetween = false;
  }
}

function timed<T>(stat: T): T {
  const known =
    stat instanceof Object && 'ino' in stat ? times.get((stat as { ino: bigint }).ino) : undefined;
  return known === undefined
    ? stat
    : (Object.assign(stat as object, { mtimeNs: known.m, ctimeNs: known.c }) as T);
}

/** From now on; there is no way back. */
export function takeOver(): void {
  Date.now = () => Math.floor(nowMs);
  performance.now = () => nowMs - EPOCH_MS;
  const staged = {
    readSync: (...args: Parameters<typeof fs.readSync>) => {
      between();
      return system.read(...args);
    },
    fstatSync: (...args: Parameters<typeof fs.fstatSync>) => {
      between();
      return timed(system.fstat(...args));
    },
    statSync: (...args: Parameters<typeof fs.statSync>) => {
      between();
      return timed(system.stat(...args));
    },
    readFileSync: (...args: Parameters<typeof fs.readFileSync>) =>
      args[0] === '/proc/locks' ? world.locks() : system.readFile(...args),
    watch: (_folder: string, _options: unknown, onEvent: OnEvent) => {
      watchers.push(onEvent);
      const close = (): void => {
        watchers = watchers.filter((one) => one !== onEvent);
      };
      return Object.assign(new EventEmitter(), { close });
    },
  };
  Object.assign(fs, staged);
  const wait = async (ms: number): Promise<void> => {
    for (let part = 0; part < 4; part++) {
      world.pass(ms / 4);
      between();
    }
    await system.immediate();
  };
  Object.assign(timers, { setTimeout: wait });
  syncBuiltinESMExports();
}
