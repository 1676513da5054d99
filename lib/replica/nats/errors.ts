/** What NATS servers and the way to them refuse, in words, with what to do. Never with a secret. */

import { ErrorCode, NatsError } from 'nats';
import { JetliteError } from '../../errors.js';
import type { Login } from './credentials.js';
import { CrowdedError, NotNatsError } from './probe.js';

/** The connection broke; whatever was asked may or may not have been done. */
export class ConnectionLost extends JetliteError {
  constructor(message: string) {
    super('REPLICA', message, { hint: 'Check that the server is running.', away: true });
    this.name = 'ConnectionLost';
  }
}

/** What the server pushes did not come, or not in order; whoever listened may begin again. */
export class ConsumerBroken extends JetliteError {
  constructor(why: string, bucket: string, url: string) {
    super('REPLICA', `${why} (bucket ${bucket}, ${url})`, {
      hint: 'It answers, but what it pushes must reach this user, too: see what is imported and allowed of _INBOX.> and $JS.FC.>, and its log.',
      away: true,
    });
    this.name = 'ConsumerBroken';
  }
}

/** API error codes of JetStream that mean something to us. */
export const Api = {
  /** Too much waits to be stored; the message was dropped. */
  TOO_MANY_REQUESTS: 10167,
  /** Nats-Expected-Last-Msg-Id was not the last. */
  WRONG_LAST_MSG_ID: 10070,
  /** Nats-Expected-Last-Subject-Sequence was not the last. */
  WRONG_LAST_SEQUENCE: 10071,
  /** Another message with such an expectation is under way (replicated streams). */
  WRONG_LAST_SEQUENCE_UNKNOWN: 10164,
  STREAM_NOT_FOUND: 10059,
  STREAM_NAME_IN_USE: 10058,
  STREAM_REPLICAS_NOT_SUPPORTED: 10074,
  CONSUMER_NOT_FOUND: 10014,
  MESSAGE_NOT_FOUND: 10037,
  JETSTREAM_NOT_ENABLED: 10076,
  JETSTREAM_NOT_ENABLED_FOR_ACCOUNT: 10039,
  TOO_MANY_CONSUMERS: 10026,
} as const;

const OUT_OF_SPACE: Record<number, string> = {
  10023: 'the servers have no resources left for it',
  10047: 'the server’s storage is used up',
  10028: 'the server’s memory is used up',
  10002: 'the account’s storage is used up',
  10122: 'the account’s limit of the stream is reached',
  10077: 'it is full, or keeps too few messages a subject',
  10054: 'its largest message is smaller than a chunk',
};

/** JetStream's error code of an answer; 0 if it has none. */
export function apiCode(error: unknown): number {
  return (error as NatsError).api_error?.err_code ?? 0;
}

/** True for errors after which the same request may succeed: nobody answered, or not now. */
export function isPassing(error: unknown): boolean {
  if (error instanceof ConnectionLost) return true;
  const { code, api_error } = error as Partial<NatsError>;
  if (api_error !== undefined) {
    if (apiCode(error) in OUT_OF_SPACE) return false;
    return api_error.code === 503 || apiCode(error) === Api.TOO_MANY_REQUESTS;
  }
  return (
    code === ErrorCode.Timeout ||
    code === ErrorCode.NoResponders ||
    code === ErrorCode.Disconnect ||
    code === ErrorCode.ConnectionTimeout ||
    code === ErrorCode.ConnectionRefused
  );
}

/** True if the server refuses for a reason that asking again does not change: no such bucket, no permission. */
export function isFinal(error: unknown): boolean {
  const { api_error, permissionContext } = error as Partial<NatsError>;
  if (permissionContext !== undefined) return true;
  return api_error !== undefined && !isPassing(error) && apiCode(error) !== Api.CONSUMER_NOT_FOUND;
}

/** As the client makes it where it can tell whose message was refused. */
export function mayNotPublish(subject: string): NatsError {
  const error = new NatsError(
    `permissions violation for publish to ${subject}`,
    ErrorCode.PermissionsViolation,
  );
  error.permissionContext = { operation: 'publish', subject };
  return error;
}

/** Since when what we say is worth nothing, to end a sentence; empty if it may be worth something. */
export function expiry({ expiresMs }: Pick<Login, 'expiresMs'>): string {
  const ms = expiresMs?.();
  return ms !== undefined && ms < Date.now() ? `, which expired at ${new Date(ms).toISOString()}` : '';
}

/** Why a connection could not be made. */
export function connectError(error: unknown, login: Login, timeoutMs: number): JetliteError {
  if (error instanceof JetliteError) return error;
  const where = login.hosts.join(', ');
  const fail = (message: string, hint: string, isAway = false) =>
    new JetliteError('REPLICA', message, { hint, cause: error, away: isAway });
  const away = (message: string, hint: string) => fail(message, hint, true);
  if (error instanceof NotNatsError) {
    // A proxy before a server that is down takes connections and drops them.
    const hint = error.saidNothing
      ? 'Check host and port; with handshake_first in its tls block a NATS server says nothing, either: set that to auto.'
      : 'Check host and port.';
    return fail(`what answers at ${where} is no NATS server`, hint, error.saidNothing);
  }
  if (error instanceof CrowdedError) {
    return away(
      `the NATS server at ${where} takes no more connections`,
      'End other clients, or raise max_connections at the server.',
    );
  }
  const { code = '', message = '' } = error as { code?: string; message?: string };
  const hostname = /getaddrinfo \w+ (\S+)/.exec(message)?.[1];
  switch (code) {
    case ErrorCode.ConnectionRefused:
    case 'ECONNREFUSED':
      return away(
        `no NATS server listens at ${where}: connection refused`,
        'Start it, or check host and port.',
      );
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return away(`the host ${hostname ?? where} of the NATS server cannot be found`, 'Check its name.');
    case ErrorCode.Timeout:
    case ErrorCode.ConnectionTimeout:
    case 'ETIMEDOUT':
    case 'EHOSTUNREACH':
    case 'ENETUNREACH':
    case 'EHOSTDOWN':
      return away(
        `no answer from the NATS server at ${where} within ${timeoutMs / 1000} s`,
        'Check host, port and firewall, or raise the timeout.',
      );
    case ErrorCode.Disconnect:
    case 'ECONNRESET':
    case 'EPIPE':
      return away(`the NATS server at ${where} broke the connection off`, 'Check its log.');
    case ErrorCode.AuthorizationViolation:
      if (expiry(login) !== '') {
        return fail(`the NATS server at ${where} refused ${login.method}${expiry(login)}`, 'Get a new one.');
      }
      return login.method === undefined
        ? fail(
            `the NATS server at ${where} requires credentials`,
            'Give a user and password, a token, creds or an nkey.',
          )
        : fail(
            `the NATS server at ${where} refused ${login.method}`,
            'Check it against the server’s configuration.',
          );
    case ErrorCode.AuthenticationExpired:
    case ErrorCode.AccountExpired:
      return fail(`the NATS server at ${where} says that ${login.method} has expired`, 'Get a new one.');
    case ErrorCode.ServerOptionNotAvailable:
      return fail(
        `the NATS server at ${where} offers no TLS`,
        'Leave tls out, or configure TLS at the server.',
      );
    default:
      return (
        tlsError(code, message, where, fail) ??
        fail(`cannot connect to the NATS server at ${where}: ${message || code}`, 'Check its log.')
      );
  }
}

function tlsError(
  code: string,
  message: string,
  where: string,
  fail: (message: string, hint: string) => JetliteError,
): JetliteError | undefined {
  switch (code) {
    case 'CERT_HAS_EXPIRED':
      return fail(`the certificate of the NATS server at ${where} has expired`, 'Renew it at the server.');
    case 'CERT_NOT_YET_VALID':
      return fail(`the certificate of the NATS server at ${where} is not valid yet`, 'Check the clocks.');
    case 'ERR_TLS_CERT_ALTNAME_INVALID':
      return fail(
        `the certificate of the NATS server at ${where} is for another host name: ${message}`,
        'Connect by a name that is in the certificate.',
      );
    case 'UNABLE_TO_VERIFY_LEAF_SIGNATURE':
    case 'UNABLE_TO_GET_ISSUER_CERT':
    case 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY':
    case 'SELF_SIGNED_CERT_IN_CHAIN':
    case 'DEPTH_ZERO_SELF_SIGNED_CERT':
    case 'CERT_SIGNATURE_FAILURE':
    case 'CERT_UNTRUSTED':
      return fail(
        `the certificate of the NATS server at ${where} is signed by an unknown authority`,
        'Give the authority’s certificate with root-cas.',
      );
    case 'ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED':
      return fail(
        `the NATS server at ${where} requires a client certificate`,
        'Give client-cert and client-key.',
      );
    default:
      if (!/_ALERT_(BAD_CERTIFICATE|UNKNOWN_CA|CERTIFICATE_|UNSUPPORTED_CERTIFICATE)/.test(code))
        return undefined;
      return fail(
        `the NATS server at ${where} refused the client certificate`,
        'Use one signed by an authority that the server trusts, and check its dates.',
      );
  }
}

/** Why a request to a bucket failed. `doing` completes "cannot …"; `bucket` is its name. Other errors stay themselves. */
export function requestError(error: unknown, doing: string, bucket: string, url: string): unknown {
  if (!(error instanceof NatsError)) return error;
  const fail = (why: string, hint: string) =>
    new JetliteError('REPLICA', `cannot ${doing}: ${why} (bucket ${bucket}, ${url})`, {
      hint,
      cause: error,
      away: isPassing(error),
    });
  const { code, message, permissionContext } = error;
  const api = apiCode(error);
  if (permissionContext !== undefined) {
    const what = permissionContext.operation === 'publish' ? 'publish to' : 'subscribe to';
    return fail(
      `this user may not ${what} ${permissionContext.subject}`,
      `Allow it in the server’s permissions for this user.`,
    );
  }
  if (api === Api.STREAM_NOT_FOUND) return missingBucket(bucket, url, error);
  if (api === Api.STREAM_NAME_IN_USE) {
    return fail('there is one with other settings', `See them: jetlite bucket info ${bucket}.`);
  }
  if (api === Api.STREAM_REPLICAS_NOT_SUPPORTED) {
    return fail(
      'replicas need a cluster, and the server is no member of one',
      'Ask for one replica, or name a server of a cluster.',
    );
  }
  if (api === Api.JETSTREAM_NOT_ENABLED) {
    return fail(
      'JetStream is off at the server',
      'Start it with -js, or add a jetstream block to its configuration.',
    );
  }
  if (api === Api.JETSTREAM_NOT_ENABLED_FOR_ACCOUNT) {
    return fail(
      'JetStream is not enabled for this account',
      'Enable it in the server’s configuration of the account.',
    );
  }
  if (api === Api.TOO_MANY_CONSUMERS) {
    return fail(
      'it allows no more consumers',
      'Every replica that is at work and every file that is read needs one: raise max_consumers of the stream or account.',
    );
  }
  const space = OUT_OF_SPACE[api];
  if (space !== undefined)
    return fail(space, 'Make room, or raise the limits of the bucket, account or server.');
  if (code === ErrorCode.NoResponders) {
    return fail(
      'JetStream does not answer',
      'It is off, not allowed for this user, or has no leader just now.',
    );
  }
  if (code === ErrorCode.Timeout)
    return fail('the server did not answer in time', 'Check its load, or raise timeout.');
  return fail(message, 'Check the server’s log.');
}

/** The error where nobody answers because the server has no JetStream. */
export function jetStreamOff(bucket: string, url: string, cause?: unknown): JetliteError {
  return new JetliteError(
    'REPLICA',
    `cannot open the bucket: JetStream does not answer, it is off at the server (bucket ${bucket}, ${url})`,
    { hint: 'Start it with -js, or add a jetstream block to its configuration.', cause },
  );
}

/** The error for a bucket that is not there: Jetlite never creates one by itself. */
export function missingBucket(bucket: string, url: string, cause?: unknown): JetliteError {
  return new JetliteError('REPLICA', `there is no bucket ${bucket} at ${url}`, {
    hint: `Create it: jetlite bucket create ${bucket} --server ${url} (or: nats object add ${bucket}).`,
    cause,
  });
}
