/**
 * The LZ4 block format, both ways (`lz4_Block_format.md` of the LZ4 project), for pages of up to 64 KiB.
 *
 * A block is a row of sequences: a token (high half: number of literals, low half: length of the match less 4;
 * 15 means that bytes to be added follow, up to the first that is not 255), the literals, the distance of the
 * match as a little-endian u16, the rest of the length if any. The last sequence has literals only. A
 * compressor keeps two rules that decompressors may rely on: the last 5 bytes are literals, and the last match
 * starts at least 12 bytes before the end.
 *
 * Both functions work in buffers of this module and copy in and out. That costs a hundredth, and it lets the
 * loops read and write whole words at any position, a little beyond the end too, with addresses that the
 * compiler knows. Hostile blocks reach nothing else.
 */

const MAX_PAGE = 65536;
const MIN_MATCH = 4;
const LAST_LITERALS = 5;
const MATCH_START_LIMIT = 12;
const HASH_BITS = 12;
/** Knuth's multiplicative constant, 2654435761, as a signed word. */
const HASH_FACTOR = -1640531535;
/**
 * After every 2^5 positions without a match the step from one to the next grows by one: noise is passed over
 * quickly.
 */
const STEP_SHIFT = 5;
/** Loops may read and write so many bytes beyond what they are asked for. */
const SLACK = 8;
/** A sequence without length bytes has at most so many: token, 14 literals, distance. */
const SHORT_SEQUENCE = 1 + 14 + 2;
/**
 * And yields at most so many: 14 literals and a match of 18; copied in eights, they reach up to 38 bytes far.
 */
const SHORT_OUTPUT = 14 + 24;

const page = new Uint8Array(MAX_PAGE + SLACK);
const pageWords = new DataView(page.buffer);
const block = new Uint8Array(lz4Bound(MAX_PAGE) + SLACK);
const blockWords = new DataView(block.buffer);
/** Hash of four bytes → where they were last seen in the page. */
const table = new Uint16Array(1 << HASH_BITS);

/** The largest block that `length` bytes can become: every byte a literal. */
export function lz4Bound(length: number): number {
  return length + Math.floor(length / 255) + 16;
}

/**
 * Compresses up to 64 KiB into one block, which goes to `out` from `outAt`, where lz4Bound(input.length) bytes
 * must be free. Returns the size of the block.
 */
export function lz4Compress(input: Uint8Array, out: Uint8Array, outAt: number): number {
  const length = input.length;
  if (length > MAX_PAGE) throw new RangeError(`${length} bytes are more than a page`);
  page.set(input);
  // An empty slot says position 0. That is as good a guess as any: the bytes there are compared in any case.
  table.fill(0);

  const lastStart = length - MATCH_START_LIMIT;
  const matchEnd = length - LAST_LITERALS;
  let anchor = 0;
  let at = 1;
  let op = 0;
  let step = 1 << STEP_SHIFT;
  while (at <= lastStart) {
    const word = pageWords.getInt32(at, true);
    const slot = Math.imul(word, HASH_FACTOR) >>> (32 - HASH_BITS);
    let ref = table[slot];
    table[slot] = at;
    if (pageWords.getInt32(ref, true) !== word) {
      at += step++ >>> STEP_SHIFT;
      continue;
    }
    step = 1 << STEP_SHIFT;
    let start = at;
    while (start > anchor && ref > 0 && page[start - 1] === page[ref - 1]) {
      start--;
      ref--;
    }
    const distance = start - ref;
    const end = endOfMatch(at + MIN_MATCH, distance, matchEnd);

    const token = op++;
    const literals = start - anchor;
    if (literals < 15) {
      block[token] = literals << 4;
    } else {
      block[token] = 0xf0;
      op = putLength(literals - 15, op);
    }
    op = putLiterals(anchor, literals, op);
    blockWords.setUint16(op, distance, true);
    op += 2;
    const longer = end - start - MIN_MATCH;
    if (longer < 15) {
      block[token] |= longer;
    } else {
      block[token] |= 15;
      op = putLength(longer - 15, op);
    }
    anchor = end;
    at = end;
    if (at <= lastStart) {
      table[Math.imul(pageWords.getInt32(at - 2, true), HASH_FACTOR) >>> (32 - HASH_BITS)] = at - 2;
    }
  }

  const literals = length - anchor;
  if (literals < 15) {
    block[op++] = literals << 4;
  } else {
    block[op++] = 0xf0;
    op = putLength(literals - 15, op);
  }
  op = putLiterals(anchor, literals, op);
  out.set(block.subarray(0, op), outAt);
  return op;
}

/** The first position from `at` whose byte differs from the one `distance` before, or `limit`. */
function endOfMatch(at: number, distance: number, limit: number): number {
  for (; at < limit - 3; at += 4) {
    const difference = pageWords.getInt32(at, true) ^ pageWords.getInt32(at - distance, true);
    if (difference !== 0) return at + ((31 - Math.clz32(difference & -difference)) >>> 3);
  }
  while (at < limit && page[at] === page[at - distance]) at++;
  return at;
}

function putLiterals(from: number, count: number, op: number): number {
  const end = op + count;
  for (; op < end; op += 4, from += 4) blockWords.setInt32(op, pageWords.getInt32(from, true), true);
  return end;
}

function putLength(rest: number, op: number): number {
  for (; rest >= 255; rest -= 255) block[op++] = 255;
  block[op++] = rest;
  return op;
}

/**
 * Decompresses the block `input[from..to)`, which may be hostile, to `out` from `outAt`, never beyond the end
 * of `out` (64 KiB at most). Matches may reach back to `window` in `out`. Returns where the output ends; if the
 * block is malformed or does not fit, ~n (a negative number), where byte n of the block shows it.
 */
export function lz4Decompress(
  input: Uint8Array,
  from: number,
  to: number,
  out: Uint8Array,
  outAt = 0,
  window = outAt,
): number {
  const capacity = out.length - window;
  if (capacity > MAX_PAGE) throw new RangeError(`${capacity} bytes are more than a page`);
  const length = to - from;
  if (length > lz4Bound(MAX_PAGE)) return ~0;
  block.set(input.subarray(from, to));
  if (outAt > window) page.set(out.subarray(window, outAt));
  const end = decompress(length, outAt - window, capacity);
  if (end < 0) return end;
  out.set(page.subarray(outAt - window, end), outAt);
  return window + end;
}

/**
 * Decompresses the first `length` bytes of `block` into `page` from `op`; returns where it ends, or ~n as
 * above.
 */
function decompress(length: number, op: number, capacity: number): number {
  const shortInput = length - SHORT_SEQUENCE;
  const shortOutput = capacity - SHORT_OUTPUT;
  let ip = 0;
  while (ip < length) {
    // Nearly all sequences are short: what follows decides in one go that they fit, and copies without counting.
    while (ip < shortInput && op < shortOutput) {
      const token = block[ip];
      const literals = token >>> 4;
      const longer = token & 15;
      if (literals === 15 || longer === 15) break;
      const distanceAt = ip + 1 + literals;
      const distance = blockWords.getUint16(distanceAt, true);
      const at = op + literals;
      if (distance < 8 || distance > at) break;
      copyLiterals8(ip + 1, op);
      if (literals > 8) copyLiterals8(ip + 9, op + 8);
      const ref = at - distance;
      copyMatch8(ref, at);
      if (longer > 4) {
        copyMatch8(ref + 8, at + 8);
        copyMatch8(ref + 16, at + 16);
      }
      op = at + longer + MIN_MATCH;
      ip = distanceAt + 2;
    }

    const token = block[ip++];
    let literals = token >>> 4;
    if (literals === 15) {
      let more = 255;
      while (more === 255) {
        if (ip >= length) return ~ip;
        more = block[ip++];
        literals += more;
      }
    }
    if (literals > length - ip || literals > capacity - op) return ~ip;
    for (let done = 0; done < literals; done += 8) copyLiterals8(ip + done, op + done);
    ip += literals;
    op += literals;
    if (ip === length) return op;

    if (length - ip < 2) return ~ip;
    const distance = blockWords.getUint16(ip, true);
    if (distance === 0 || distance > op) return ~ip;
    ip += 2;
    let matchLength = token & 15;
    if (matchLength === 15) {
      let more = 255;
      while (more === 255) {
        if (ip >= length) return ~ip;
        more = block[ip++];
        matchLength += more;
      }
    }
    matchLength += MIN_MATCH;
    if (matchLength > capacity - op) return ~ip;
    const end = op + matchLength;
    if (distance >= 8) {
      for (; op < end; op += 8) copyMatch8(op - distance, op);
    } else if (distance === 1) {
      page.fill(page[op - 1], op, end);
    } else {
      for (; op < end; op++) page[op] = page[op - distance];
    }
    op = end;
  }
  return ~ip;
}

function copyLiterals8(from: number, to: number): void {
  pageWords.setInt32(to, blockWords.getInt32(from, true), true);
  pageWords.setInt32(to + 4, blockWords.getInt32(from + 4, true), true);
}

/** Right for overlapping matches too, if they begin at least 4 bytes back. */
function copyMatch8(from: number, to: number): void {
  pageWords.setInt32(to, pageWords.getInt32(from, true), true);
  pageWords.setInt32(to + 4, pageWords.getInt32(from + 4, true), true);
}
