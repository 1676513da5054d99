/**
 * A small operator of one's own: nkeys and JWTs as `nsc` would make them, so that tests need no other program.
 *
 * A JWT is `header.claims.signature`, each base64url without padding; the signature is the issuer's, over the first two.
 * Its `jti` is the SHA-512/256 of the claims without it, in base32.
 */

import { createHash } from 'node:crypto';
import { nkeys } from 'nats';

type KeyPair = ReturnType<typeof nkeys.createUser>;

export interface TestUser {
  readonly publicKey: string;
  readonly seed: string;
  readonly jwt: string;
  /** The text of a credentials file. */
  readonly creds: string;
}

/** One operator with one account that may use JetStream, and the server configuration that trusts them. */
export class TestOperator {
  readonly #operator = nkeys.createOperator();
  readonly #account = nkeys.createAccount();
  readonly #system = nkeys.createAccount();

  /** For the top level of a server's configuration file. */
  get config(): string {
    const operatorJwt = sign(this.#operator, this.#operator, 'operator', {
      type: 'operator',
      version: 2,
      system_account: this.#system.getPublicKey(),
    });
    const limits = {
      subs: -1,
      data: -1,
      payload: -1,
      conn: -1,
      leaf: -1,
      imports: -1,
      exports: -1,
      wildcards: true,
    };
    const storage = { mem_storage: -1, disk_storage: -1, streams: -1, consumer: -1 };
    const account = (pair: KeyPair, name: string, more: object) =>
      sign(this.#operator, pair, name, { type: 'account', version: 2, limits: { ...limits, ...more } });
    return `
operator: ${operatorJwt}
system_account: ${this.#system.getPublicKey()}
resolver: MEMORY
resolver_preload: {
  ${this.#account.getPublicKey()}: ${account(this.#account, 'app', storage)}
  ${this.#system.getPublicKey()}: ${account(this.#system, 'SYS', {})}
}`;
  }

  /** A user of the account; `expiresInS` may lie in the past. */
  user(expiresInS?: number): TestUser {
    const pair = nkeys.createUser();
    const seed = new TextDecoder().decode(pair.getSeed());
    const claims = { type: 'user', version: 2, subs: -1, data: -1, payload: -1 };
    const jwt = sign(this.#account, pair, 'user', claims, expiresInS);
    const creds = `-----BEGIN NATS USER JWT-----
${jwt}
------END NATS USER JWT------

-----BEGIN USER NKEY SEED-----
${seed}
------END USER NKEY SEED------
`;
    return { publicKey: pair.getPublicKey(), seed, jwt, creds };
  }
}

function sign(issuer: KeyPair, subject: KeyPair, name: string, nats: object, expiresInS?: number): string {
  const now = Math.floor(Date.now() / 1000);
  const claims = {
    iat: now - 10,
    ...(expiresInS === undefined ? {} : { exp: now + expiresInS }),
    iss: issuer.getPublicKey(),
    name,
    sub: subject.getPublicKey(),
    nats,
  };
  const jti = base32(createHash('sha512-256').update(JSON.stringify(claims)).digest());
  const signed = `${part({ typ: 'JWT', alg: 'ed25519-nkey' })}.${part({ jti, ...claims })}`;
  return `${signed}.${Buffer.from(issuer.sign(Buffer.from(signed))).toString('base64url')}`;
}

function part(claims: object): string {
  return Buffer.from(JSON.stringify(claims)).toString('base64url');
}

function base32(bytes: Uint8Array): string {
  const digits = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
  let bits = '';
  for (const byte of bytes) bits += byte.toString(2).padStart(8, '0');
  return (bits.match(/.{1,5}/g) ?? [])
    .map((five) => digits[Number.parseInt(five.padEnd(5, '0'), 2)])
    .join('');
}
