/** When the state that a file ends at was captured. */

import type { LtxHeader } from '../../ltx/header.js';
import type { LtxFileInfo } from '../../replica/replica.js';

/**
 * Milliseconds since the epoch, as the listing of a replica has it. Headers say the same (a folder's listing may be behind for a
 * moment: Litestream sets the time after the name), except that the first file begins before it is known when it ends.
 */
export function capturedMs(file: LtxFileInfo, header: LtxHeader): number {
  return header.maxTxid === 1n ? file.timestampMs : header.timestampMs;
}
