/**
 * Lets SQLite, compiled to WebAssembly, read a database file in place: a read-only virtual file system of one file over
 * node:fs. Pages go straight from the file into SQLite's memory.
 *
 * Read-ahead is the operating system's. What counts is SQLite's own page cache, set by the caller: with a cache that
 * holds the inner pages of its indexes, an integrity check reads a database about once.
 */

import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import type { Sqlite3Result, Sqlite3Static, WasmPointer } from '@sqlite.org/sqlite-wasm';

const VFS_NAME = 'jetlite-readonly';
/** The one file there is, whatever its path: so no path needs to be written as a URI. */
const FILE_NAME = '/database';
/** Nothing but reads happens, so a header that says WAL mode must not make SQLite look for a WAL. */
const URI = `file:${FILE_NAME}?immutable=1`;
const MAX_PATH = 64;
const UNIX_EPOCH_JULIAN_DAYS = 2440587.5;
const MS_PER_DAY = 86_400_000;

export interface ReadOnlyFile {
  readonly uri: string;
  readonly vfs: string;
  /** Bytes. */
  readonly size: number;
  /** The first error of the operating system; SQLite only knows that there was one. */
  failure(): unknown;
  close(): void;
}

/** Opens the file at `path` and registers the file system. Throws what the operating system refuses. */
export function openReadOnlyFile(sqlite3: Sqlite3Static, path: string): ReadOnlyFile {
  const { capi, wasm } = sqlite3;
  const fd = openSync(path, 'r');
  const { size } = fstatSync(fd);
  let failure: unknown;

  const methods = new capi.sqlite3_io_methods();
  methods.iVersion = 1;
  const vfs = new capi.sqlite3_vfs();
  vfs.$iVersion = 1;
  vfs.$szOsFile = new capi.sqlite3_file().structInfo.sizeof;
  vfs.$mxPathname = MAX_PATH;

  const read = (
    _file: WasmPointer,
    target: WasmPointer,
    length: number,
    at: number | bigint,
  ): Sqlite3Result => {
    const heap = wasm.heap8u();
    try {
      let got = 0;
      while (got < length) {
        const count = readSync(fd, heap, target + got, length - got, Number(at) + got);
        if (count === 0) break;
        got += count;
      }
      if (got === length) return capi.SQLITE_OK;
      heap.fill(0, target + got, target + length);
      return capi.SQLITE_IOERR_SHORT_READ;
    } catch (error) {
      failure ??= error;
      return capi.SQLITE_IOERR_READ;
    }
  };
  const open = (
    _vfs: WasmPointer,
    name: WasmPointer,
    file: WasmPointer,
    flags: number,
    out: WasmPointer,
  ): Sqlite3Result => {
    if (name === 0 || wasm.cstrToJs(name) !== FILE_NAME) return capi.SQLITE_CANTOPEN;
    const opened = new capi.sqlite3_file(file);
    opened.$pMethods = methods.pointer;
    opened.dispose();
    if (out !== 0) wasm.poke(out, flags, 'i32');
    return capi.SQLITE_OK;
  };
  const refuse = (): Sqlite3Result => capi.SQLITE_READONLY;
  const allow = (): Sqlite3Result => capi.SQLITE_OK;
  const answerNo = (out: WasmPointer): Sqlite3Result => {
    wasm.poke(out, 0, 'i32');
    return capi.SQLITE_OK;
  };

  sqlite3.vfs.installVfs({
    io: {
      struct: methods,
      methods: {
        xClose: allow,
        xRead: read,
        xWrite: refuse,
        xTruncate: refuse,
        xSync: allow,
        xFileSize: (_file, out) => {
          wasm.poke(out, size, 'i64');
          return capi.SQLITE_OK;
        },
        xLock: allow,
        xUnlock: allow,
        xCheckReservedLock: (_file, out) => answerNo(out),
        xFileControl: () => capi.SQLITE_NOTFOUND,
        xDeviceCharacteristics: allow, // None.
      },
    },
    vfs: {
      struct: vfs,
      name: VFS_NAME,
      methods: {
        xOpen: open,
        xDelete: refuse,
        xAccess: (_vfs, _name, _flags, out) => answerNo(out),
        xFullPathname: (_vfs, name, length, out) =>
          wasm.cstrncpy(out, name, length) < length ? capi.SQLITE_OK : capi.SQLITE_CANTOPEN,
        xCurrentTime: (_vfs, out) => {
          wasm.poke(out, UNIX_EPOCH_JULIAN_DAYS + Date.now() / MS_PER_DAY, 'double');
          return capi.SQLITE_OK;
        },
      },
    },
  });

  return { uri: URI, vfs: VFS_NAME, size, failure: () => failure, close: () => closeSync(fd) };
}
