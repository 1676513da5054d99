/**
 * New files of a replica folder as they appear: woken by the file system's events, each followed by a look at the
 * one file it names, and by a slow listing where there are none (network file systems) or where a folder to listen
 * at does not exist yet.
 */

import { type FSWatcher, watch } from 'node:fs';
import { join } from 'node:path';
import { levelFolder, ltxPath, parseLtxPath, SNAPSHOT_LEVEL } from './names.js';
import type { LtxFileInfo } from './replica.js';

const POLL_MS = 5000;
const POLL_UNWATCHED_MS = 500;

/** What is watched: `list` shows every file, `look` the one of that name or undefined if it is gone. */
export interface WatchedFolder {
  readonly root: string;
  list(): Promise<LtxFileInfo[]>;
  look(path: string): Promise<LtxFileInfo | undefined>;
}

/**
 * The files that appear or change after the call, by level and TXID where several come at once. Ends when the
 * signal fires.
 */
export function watchFolder(folder: WatchedFolder, signal: AbortSignal): AsyncIterable<LtxFileInfo> {
  const events = new FolderEvents(folder.root);
  const before = folder.list();
  before.catch(() => {}); // Reported by the first step of the iteration.
  return follow(folder, events, before, signal);
}

async function* follow(
  folder: WatchedFolder,
  events: FolderEvents,
  before: Promise<LtxFileInfo[]>,
  signal: AbortSignal,
): AsyncGenerator<LtxFileInfo> {
  const stop = () => events.wake();
  signal.addEventListener('abort', stop);
  try {
    let known = new Map<string, string | undefined>();
    for (const file of await before) known.set(ltxPath(file), file.version);
    while (!signal.aborted) {
      const paths = await events.next();
      const looked = paths === undefined ? await folder.list() : await lookAtAll(folder, paths);
      const next = paths === undefined ? new Map<string, string | undefined>() : known;
      for (const file of looked) {
        const path = ltxPath(file);
        const isNew = !known.has(path) || known.get(path) !== file.version;
        next.set(path, file.version);
        if (isNew && !signal.aborted) yield file;
      }
      known = next;
    }
  } finally {
    signal.removeEventListener('abort', stop);
    events.close();
  }
}

async function lookAtAll(folder: WatchedFolder, paths: readonly string[]): Promise<LtxFileInfo[]> {
  const found: LtxFileInfo[] = [];
  for (const path of paths) {
    const file = await folder.look(path);
    if (file !== undefined) found.push(file);
  }
  return found;
}

/** The file system's events below a replica folder, gathered between two looks. */
class FolderEvents {
  readonly #root: string;
  readonly #watchers = new Map<string, FSWatcher>();
  /** Paths of LTX files, relative to the root, that something happened to. */
  #touched = new Set<string>();
  #listAll = false;
  #woken = false;
  #resolve = () => {};

  constructor(root: string) {
    this.#root = root;
    this.#listen();
  }

  /** Waits for something to happen: the paths to look at, or undefined where everything must be listed. */
  async next(): Promise<string[] | undefined> {
    if (!this.#woken) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(
          () => {
            this.#listAll = true;
            resolve();
          },
          this.#watchers.has('ltx') ? POLL_MS : POLL_UNWATCHED_MS,
        );
        this.#resolve = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    this.#woken = false;
    const paths = this.#listAll ? undefined : [...this.#touched].sort();
    if (this.#listAll) this.#listen();
    this.#listAll = false;
    this.#touched = new Set();
    return paths;
  }

  wake(): void {
    this.#woken = true;
    this.#resolve();
  }

  close(): void {
    for (const watcher of this.#watchers.values()) watcher.close();
  }

  #listen(): void {
    this.#watch('');
    this.#watch('ltx');
    for (let level = 0; level <= SNAPSHOT_LEVEL; level++) this.#watch(levelFolder(level));
  }

  #watch(folder: string): void {
    if (this.#watchers.has(folder)) return;
    try {
      const watcher = watch(join(this.#root, folder), (_event, name) => this.#note(folder, name));
      this.#watchers.set(folder, watcher);
      watcher.on('error', () => {
        watcher.close();
        this.#watchers.delete(folder);
      });
    } catch {
      // Not there yet, or no watches left: the slow listing covers it.
    }
  }

  #note(folder: string, name: string | null): void {
    if (name === null || !folder.startsWith('ltx/')) {
      this.#listAll = true;
    } else {
      const path = `${folder}/${name}`;
      if (parseLtxPath(path) === undefined) return;
      this.#touched.add(path);
    }
    this.wake();
  }
}
