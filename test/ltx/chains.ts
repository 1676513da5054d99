/**
 * Folders of LTX files in Litestream's layout, `<level>/<min>-<max>.ltx`, and what laying the files over one
 * another gives.
 */

import { createReadStream, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { decodeLtx } from '../../lib/ltx/decoder.js';
import { parseLtxFileName } from '../../lib/ltx/header.js';

export interface ChainFile {
  readonly path: string;
  readonly minTxid: bigint;
  readonly maxTxid: bigint;
}

/** The files of one level, ascending. */
export function filesOfLevel(folder: string, level: number): ChainFile[] {
  const names = readdirSync(join(folder, `${level}`)).sort();
  return names.map((name) => {
    const range = parseLtxFileName(name);
    if (range === undefined) throw new Error(`${name} is no name of an LTX file`);
    return { path: join(folder, `${level}`, name), ...range };
  });
}

/** A database that LTX files are applied to. */
export class AppliedDatabase {
  #bytes = Buffer.alloc(0);

  get bytes(): Buffer {
    return this.#bytes;
  }

  /** Applies a whole file, and checks that its name says what its header says. */
  async apply(file: ChainFile): Promise<void> {
    let pageSize = 0;
    await decodeLtx(file.path, createReadStream(file.path, { highWaterMark: 1000 }), {
      header: (header) => {
        if (header.minTxid !== file.minTxid || header.maxTxid !== file.maxTxid) {
          throw new Error(`${file.path} has another range in its header`);
        }
        pageSize = header.pageSize;
        const resized = Buffer.alloc(header.commit * pageSize);
        this.#bytes.copy(resized);
        this.#bytes = resized;
      },
      page: (pgno, page) => this.#bytes.set(page, (pgno - 1) * pageSize),
    });
  }
}
