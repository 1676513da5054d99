/** The programs that tests run beside Jetlite. Which there are, and where, is decided in scripts/peers.mjs. */

export type PeerName =
  | 'nats-server'
  | 'nats-server-2.10'
  | 'litestream'
  | 'sqlite3'
  | 'python3'
  | 'node22'
  | 'openssl'
  | 'strace'
  | 'nats';

interface PeerLookup {
  findPeer(name: PeerName): string | undefined;
  whatIsMissing(name: PeerName): string;
  isOptional(name: PeerName): boolean;
}

// Seen from dist/test/support; the script is plain JavaScript and stays where it is.
const lookup: PeerLookup = await import(new URL('../../../scripts/peers.mjs', import.meta.url).href);

/** The absolute path of a peer, or undefined where it is not installed. Never downloads. */
export function peerPath(name: PeerName): string | undefined {
  return lookup.findPeer(name);
}

/**
 * The path of a peer that the test needs. Where it is missing the test is skipped with one line and the answer
 * is undefined; with `REQUIRE_PEERS=1` it throws instead, unless the
 * peer is an optional one.
 *
 *     const sqlite3 = peer(t, 'sqlite3');
 *     if (!sqlite3) return;
 */
export function peer(t: { skip(message?: string): void }, name: PeerName): string | undefined {
  const path = lookup.findPeer(name);
  if (path !== undefined) return path;
  if (process.env.REQUIRE_PEERS === '1' && !lookup.isOptional(name))
    throw new Error(lookup.whatIsMissing(name));
  t.skip(lookup.whatIsMissing(name));
  return undefined;
}
