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
      ...['-subj', '/CN=test authority', '-keyout', this.itself.key, '-out', this.cert],
    ]);
  }

  /** The authority as a server of its own, with a certificate that nobody else signed. */
  get itself(): KeyPair {
    return { cert: this.cert, key: join(this.folder, 'ca.key') };
  }

  /** A key and a certificate for the names, e.g. `IP:127.0.0.1` or `DNS:localhost`; valid for so many days from now. */
  async issue(names: string, days = 2): Promise<KeyPair> {
    const { pair, base } = await this.#request(names);
    await run(this.#openssl, [
      ...['x509', '-req', '-in', `${base}.csr`, '-CA', this.cert, '-CAkey', this.itself.key],
      ...['-CAcreateserial', '-days', `${days}`, '-extfile', `${base}.ext`, '-out', pair.cert],
    ]);
    return pair;
  }

  /** The same, valid from tomorrow on. */
  async issueForTomorrow(names: string): Promise<KeyPair> {
    const { pair, base } = await this.#request(names);
    const day = (days: number) =>
      `${new Date(Date.now() + days * 86_400_000).toISOString().replace(/\.\d+|\D/g, '')}Z`;
    await writeFile(`${base}.txt`, '');
    const settings = `[ca]\ndefault_ca = own\n[own]\ndatabase = ${base}.txt\nnew_certs_dir = ${this.folder}\npolicy = any
default_md = sha256\nrand_serial = yes\n[any]\ncommonName = supplied\n`;
    await writeFile(`${base}.cnf`, settings);
    await run(this.#openssl, [
      ...[
        'ca',
        '-batch',
        '-notext',
        '-config',
        `${base}.cnf`,
        '-cert',
        this.cert,
        '-keyfile',
        this.itself.key,
      ],
      ...['-startdate', day(1), '-enddate', day(2), '-extfile', `${base}.ext`],
      ...['-in', `${base}.csr`, '-out', pair.cert],
    ]);
    return pair;
  }

  async #request(names: string): Promise<{ pair: KeyPair; base: string }> {
    const base = join(this.folder, `issued${++this.#made}`);
    const pair = { cert: `${base}.pem`, key: `${base}.key` };
    await run(this.#openssl, [
      ...['req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', '/CN=test'],
      ...['-keyout', pair.key, '-out', `${base}.csr`],
    ]);
    await writeFile(`${base}.ext`, `subjectAltName=${names}\nextendedKeyUsage=serverAuth,clientAuth\n`);
    return { pair, base };
  }
}
