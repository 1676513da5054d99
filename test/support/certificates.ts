/** Certificates made with openssl for one test: an authority, servers and clients signed by it. */

import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { peer } from './peers.js';

const run = promisify(execFile);

export interface KeyPair {
  readonly cert: string;
  readonly key: string;
}

/** An authority of the test's own; paths of PEM files. Undefined (and the test skipped) without openssl. */
export async function makeAuthority(t: {
  after(action: () => Promise<void>): void;
  skip(message?: string): void;
}): Promise<Authority | undefined> {
  const openssl = peer(t, 'openssl');
  if (openssl === undefined) return undefined;
  const folder = await mkdtemp(join(tmpdir(), 'jetlite-certs-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const authority = new Authority(openssl, folder);
  await authority.init();
  return authority;
}

export class Authority {
  readonly folder: string;
  /** The authority's own certificate. */
  readonly cert: string;
  readonly #openssl: string;
  #made = 0;

  constructor(openssl: string, folder: string) {
    this.#openssl = openssl;
    this.folder = folder;
    this.cert = join(folder, 'ca.pem');
  }

  async init(): Promise<void> {
    await run(this.#openssl, [
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'],
      ...['-subj', '/CN=test authority', '-keyout', join(this.folder, 'ca.key'), '-out', this.cert],
    ]);
  }

  /** A key and a certificate for the names, e.g. `IP:127.0.0.1` or `DNS:localhost`; valid for so many days from now. */
  async issue(names: string, days = 2): Promise<KeyPair> {
    const base = join(this.folder, `issued${++this.#made}`);
    const pair = { cert: `${base}.pem`, key: `${base}.key` };
    await run(this.#openssl, [
      ...['req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', '/CN=test'],
      ...['-keyout', pair.key, '-out', `${base}.csr`],
    ]);
    await writeFile(`${base}.ext`, `subjectAltName=${names}\nextendedKeyUsage=serverAuth,clientAuth\n`);
    await run(this.#openssl, [
      ...['x509', '-req', '-in', `${base}.csr`, '-CA', this.cert, '-CAkey', join(this.folder, 'ca.key')],
      ...['-CAcreateserial', '-days', `${days}`, '-extfile', `${base}.ext`, '-out', pair.cert],
    ]);
    return pair;
  }
}
