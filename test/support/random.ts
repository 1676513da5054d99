/** Pseudo-random numbers for tests: another seed each run, printed, so that a failure can be repeated. */

export interface Random {
  /** An integer from 0 to `limit - 1`. */
  below(limit: number): number;
  /** True once in `n` calls on average. */
  oneIn(n: number): boolean;
  bytes(length: number): Uint8Array;
  pick<T>(from: readonly T[]): T;
}

/** Mulberry32 from a seed. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
  const below = (limit: number): number => Math.floor((next() / 2 ** 32) * limit);
  return {
    below,
    oneIn: (n) => below(n) === 0,
    bytes: (length) => Uint8Array.from({ length }, () => below(256)),
    pick: (from) => from[below(from.length)],
  };
}

/** A random source for one test; JETLITE_SEED repeats an earlier run. */
export function randomSource(t: { diagnostic(message: string): void }): Random {
  const seed = Number(process.env.JETLITE_SEED ?? Math.floor(Math.random() * 2 ** 32));
  t.diagnostic(`JETLITE_SEED=${seed}`);
  return seededRandom(seed);
}
