import { decodeLtx } from '../../lib/ltx/decoder.js';
import { ltxFileName } from '../../lib/ltx/header.js';
import { openReplica } from '../../lib/replica/open.js';

/** How many pages each LTX file of a replica holds, by level and name. */
export async function ltxPages(address: string): Promise<Map<string, number>> {
  const replica = await openReplica(address);
  try {
    const pages = new Map<string, number>();
    for (const file of await replica.list()) {
      const name = `${file.level}/${ltxFileName(file.minTxid, file.maxTxid)}`;
      pages.set(name, (await decodeLtx(name, replica.read(file), {})).pageCount);
    }
    return pages;
  } finally {
    await replica.close();
  }
}
