/** The file to inspect: opened read-only, read in pieces. */

import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { JetliteError } from '../../lib/errors.js';

/** Everything that is read in sequence is read in pieces of this size: memory does not grow with the file. */
export const PIECE_SIZE = 1 << 20;
/** Opening a named pipe would wait for its writer, for ever and whatever signal comes. Windows knows no such thing. */
const FLAGS = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0);

export class InputFile {
  readonly path: string;
  /** Bytes, when it was opened. */
  readonly size: number;
  readonly #handle: FileHandle;
  readonly #signal: AbortSignal;

  private constructor(path: string, size: number, handle: FileHandle, signal: AbortSignal) {
    this.path = path;
    this.size = size;
    this.#handle = handle;
    this.#signal = signal;
  }

  static async open(path: string, signal: AbortSignal): Promise<InputFile> {
    let handle: FileHandle | undefined;
    try {
      handle = await open(path, FLAGS);
      const stat = await handle.stat();
      if (!stat.isFile())
        throw new JetliteError(
          'DATABASE',
          `${path}: expected a file, found ${stat.isDirectory() ? 'a directory' : stat.isFIFO() ? 'a pipe' : 'a device'}`,
        );
      return new InputFile(path, stat.size, handle, signal);
    } catch (error) {
      await handle?.close();
      if (error instanceof JetliteError) throw error;
      const { code, message } = error as NodeJS.ErrnoException;
      const why = code === 'ENOENT' ? 'no such file' : code === 'EACCES' ? 'permission denied' : message;
      throw new JetliteError('DATABASE', `cannot read ${path}: ${why}`, { cause: error });
    }
  }

  /** Fills `bytes` from `position` of the file on; returns what is there of it, less only at the end of the file. */
  async read(bytes: Uint8Array, position: number): Promise<Uint8Array> {
    this.#signal.throwIfAborted();
    let length = 0;
    while (length < bytes.length) {
      const { bytesRead } = await this.#handle.read(bytes, length, bytes.length - length, position + length);
      if (bytesRead === 0) break;
      length += bytesRead;
    }
    return bytes.subarray(0, length);
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}
