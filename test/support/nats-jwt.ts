/** An operator, an account and a user with JWTs, as `nsc` would make them, for a server that trusts that operator. */

import { nkeys } from 'nats';

export interface UserJwt {
  /** For the server's configuration file, beside its `jetstream` block. */
  readonly serverConfig: string;
  readonly jwt: string;
  readonly seed: string;
  /** The content of a credentials file. */
  readonly creds: string;
}

type KeyPair = ReturnType<typeof nkeys.createUser>;

/** A user who may do everything in an account with JetStream. */
export function makeUserJwt(): UserJwt {
  const [operator, account, user] = [nkeys.createOperator(), nkeys.createAccount(), nkeys.createUser()];
  const system = nkeys.createAccount();
  const unlimited = { subs: -1, data: -1, payload: -1 };
  const accountLimits = { ...unlimited, imports: -1, exports: -1, conn: -1, leaf: -1, wildcards: true };
  const jetstream = { mem_storage: -1, disk_storage: -1, streams: -1, consumer: -1 };
  const accountJwt = sign(operator, account, 'test', {
    type: 'account',
    limits: { ...accountLimits, ...jetstream },
  });
  const systemJwt = sign(operator, system, 'SYS', { type: 'account', limits: accountLimits });
  const jwt = sign(account, user, 'user', { type: 'user', pub: {}, sub: {}, ...unlimited });
  const seed = new TextDecoder().decode(user.getSeed());
  return {
    serverConfig: `
operator: "${sign(operator, operator, 'operator', { type: 'operator' })}"
system_account: "${system.getPublicKey()}"
resolver: MEMORY
resolver_preload {
  ${system.getPublicKey()}: "${systemJwt}"
  ${account.getPublicKey()}: "${accountJwt}"
}`,
    jwt,
    seed,
    creds: `-----BEGIN NATS USER JWT-----
${jwt}
------END NATS USER JWT------

-----BEGIN USER NKEY SEED-----
${seed}
------END USER NKEY SEED------
`,
  };
}

function sign(issuer: KeyPair, subject: KeyPair, name: string, nats: Record<string, unknown>): string {
  const claims = {
    jti: name,
    iat: Math.floor(Date.now() / 1000),
    iss: issuer.getPublicKey(),
    sub: subject.getPublicKey(),
    name,
    nats: { version: 2, ...nats },
  };
  const text = `${encoded({ typ: 'JWT', alg: 'ed25519-nkey' })}.${encoded(claims)}`;
  const signature = issuer.sign(new TextEncoder().encode(text));
  return `${text}.${Buffer.from(signature).toString('base64url')}`;
}

function encoded(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}
