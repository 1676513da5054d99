/**
 * Whether two URLs, as replicas show them, name the same replica. What is kept of a replica on this machine (its state
 * folder, a live copy) is found by this, not by how the URL is spelled.
 *
 * 1. In a bucket it is the same one if bucket and prefix are, and if the lists of servers have one in common. A scheme says
 *    how to connect, not where to; the order of a list, a port that is the default and a name for this machine say nothing.
 * 2. Buckets of one name at servers that have none in common are two: nobody can tell them from one, and what waits for
 *    the one must not come into the other.
 * 3. Of anything else, a folder above all, only the very same URL is the same.
 */

import { parseNatsServers, splitHost, withoutUserInfo } from './nats/address.js';

/** `namesake`: bucket and prefix of the same names, at other servers. */
export type Likeness = 'same' | 'namesake' | 'other';

/** Not 127.0.0.2 and the like: there may be a server on each. */
const LOOPBACK: ReadonlySet<string> = new Set(['localhost', '127.0.0.1', '[::1]', '[::ffff:7f00:1]']);

export function compareReplicas(one: string, another: string): Likeness {
  if (one === another) return 'same';
  const [a, b] = [placeOf(one), placeOf(another)];
  if (a === undefined || b === undefined || a.path !== b.path) return 'other';
  return a.servers.some((server) => b.servers.includes(server)) ? 'same' : 'namesake';
}

/** The URL as it may be written down: a home of somebody else's may not have left its credentials out. */
export function withoutCredentials(url: string): string {
  if (/^file:/i.test(url)) return url;
  return placeOf(url) === undefined || /^[^/]*\/\/[^/]*@/.test(url) ? withoutUserInfo(url) : url;
}

/** Undefined for what is in no bucket. */
function placeOf(url: string): { readonly servers: readonly string[]; readonly path: string } | undefined {
  const [, servers, path] = /^(?:nats|tls):\/\/([^/]+)\/(.+)$/is.exec(url) ?? [];
  if (servers === undefined) return undefined;
  try {
    return { servers: parseNatsServers(servers).hosts.map(serverOf), path };
  } catch {
    return undefined;
  }
}

function serverOf(address: string): string {
  const { host, port } = splitHost(address);
  const canonical = canonicalHost(host.includes(':') ? `[${host}]` : host).replace(/\.$/, '');
  return `${LOOPBACK.has(canonical) ? 'localhost' : canonical}:${port}`;
}

/** Addresses have more than one spelling: the parser of the web's URLs knows them. */
function canonicalHost(host: string): string {
  if (!/^(?:[\w.-]+|\[[\da-f:.]+\])$/i.test(host)) return host.toLowerCase();
  try {
    return new URL(`http://${host}`).hostname;
  } catch {
    return host.toLowerCase();
  }
}
