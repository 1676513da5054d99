/**
 * Durations, sizes, moments and TXIDs as users write them, on the command line and in the configuration.
 * Each parser returns undefined for what it cannot read; the caller knows which flag or key to name.
 */

import { parseTxid } from '../lib/ltx/header.js';

const DURATION_UNITS_MS: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  μs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};

/** What to write, for error messages. */
export const DURATION_EXAMPLES = 'a duration such as 500ms, 2s, 5m or 1h30m';
export const SIZE_EXAMPLES = 'a size such as 64MB, 1GiB or a number of bytes';
export const TIMESTAMP_EXAMPLES = 'a moment such as 2026-11-23T15:04:05Z';
export const TXID_EXAMPLES = 'a TXID: up to 16 hexadecimal digits, not 0';

/** Go's durations: "2s", "1h30m", "1.5h", "-1m", "0". Milliseconds. */
export function parseDuration(text: string): number | undefined {
  const match = /^([+-]?)((?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+|0)$/.exec(text);
  if (match === null) return undefined;
  let ms = 0;
  for (const [, number, unit] of match[2]!.matchAll(/(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)/g)) {
    ms += Number(number) * DURATION_UNITS_MS[unit!]!;
  }
  return match[1] === '-' ? -ms : ms;
}

const SIZE_UNITS: Readonly<Record<string, number>> = {
  '': 1,
  b: 1,
  k: 1e3,
  kb: 1e3,
  m: 1e6,
  mb: 1e6,
  g: 1e9,
  gb: 1e9,
  t: 1e12,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
};

/** "1048576", "64MB", "1 GiB", "1.5g". Whole bytes. */
export function parseSize(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text);
  const unit = match === null ? undefined : SIZE_UNITS[match[2]!.toLowerCase()];
  if (match === null || unit === undefined) return undefined;
  const bytes = Math.round(Number(match[1]) * unit);
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

/** RFC 3339: date, time and zone, all three. Fractions finer than a millisecond are cut off. Milliseconds since 1970. */
export function parseTimestamp(text: string): number | undefined {
  const match =
    /^(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:[Zz]|([+-])(\d\d):(\d\d))$/.exec(text);
  if (match === null) return undefined;
  const [year, month, day, hour, minute, second] = match.slice(1, 7).map(Number) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  const ms = Number((match[7] ?? '').slice(0, 3).padEnd(3, '0'));
  const whole = new Date(Date.UTC(year, month - 1, day, hour, minute, second, ms));
  // Date.UTC carries over what does not exist (30 February, 25:00): what comes out must be what went in.
  const exists =
    whole.getUTCMonth() === month - 1 &&
    whole.getUTCDate() === day &&
    whole.getUTCHours() === hour &&
    whole.getUTCMinutes() === minute &&
    whole.getUTCSeconds() === second;
  const offsetHours = Number(match[9] ?? 0);
  const offsetMinutes = Number(match[10] ?? 0);
  if (!exists || offsetHours > 23 || offsetMinutes > 59) return undefined;
  const offsetMs = (offsetHours * 60 + offsetMinutes) * 60_000;
  return whole.getTime() - (match[8] === '-' ? -offsetMs : offsetMs);
}

/** A TXID as typed: leading zeros may be left out, as in "2f". */
export function parseTypedTxid(text: string): bigint | undefined {
  const txid = /^[0-9a-f]{1,16}$/i.test(text) ? parseTxid(text.toLowerCase().padStart(16, '0')) : undefined;
  return txid === 0n ? undefined : txid;
}
