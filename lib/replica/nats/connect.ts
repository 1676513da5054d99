/** How to reach and authenticate with NATS servers, beyond what a URL says. */
export interface NatsOptions {
  readonly username?: string;
  readonly password?: string;
  readonly token?: string;
  /** A user's JWT, with the seed of its nkey. */
  readonly jwt?: string;
  readonly seed?: string;
  /** Path of a credentials file (JWT and seed). */
  readonly creds?: string;
  /** An nkey seed; or the public key, with `seed`. */
  readonly nkey?: string;
  /** Refuse a connection without TLS. */
  readonly tls?: boolean;
  /** Paths of PEM files with the authorities to trust instead of the system's. */
  readonly rootCAs?: readonly string[];
  /** Paths of PEM files; one without the other is an error. */
  readonly clientCert?: string;
  readonly clientKey?: string;
  /** -1, the default, for no limit. */
  readonly maxReconnects?: number;
  /** Default 2000. */
  readonly reconnectWaitMs?: number;
  /** For connecting and for every answer of the server. Default 10000. */
  readonly timeoutMs?: number;
}
