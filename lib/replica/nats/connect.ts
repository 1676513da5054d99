/**
 * A connection to NATS servers that says in words what is wrong, and lets its users know at once when it is lost.
 *
 * The client reconnects by itself, for as long as it is allowed to. What was under way when the connection broke has an
 * unknown end; users of a link hear of the break by `lost` and find out, after `ready`, how it ended.
 */

import { setTimeout as delay } from 'node:timers/promises';
import {
  type ConnectionOptions,
  connect,
  ErrorCode,
  Events,
  type NatsConnection,
  NatsError,
  type TlsOptions,
} from 'nats';
import { GivenUpError, JetliteError } from '../../errors.js';
import { LONGEST_TIMER_MS } from '../../longest-timer.js';
import type { NatsServers } from './address.js';
import {
  type Environment,
  type Login,
  type NatsCredentials,
  type NatsTls,
  resolveLogin,
  resolveTls,
} from './credentials.js';
import { ConnectionLost, connectError, expiry, isPassing } from './errors.js';
import { greetingFirst, refusal } from './probe.js';
import { Sockets } from './sockets.js';

export interface NatsOptions extends NatsCredentials, NatsTls {
  /** How often in a row a server is tried again after the connection was lost; -1, the default, for ever. */
  readonly maxReconnects?: number;
  /** Between two tries at one server. Default 2000. */
  readonly reconnectWaitMs?: number;
  /** For connecting, and for every answer of a server. Default 10000. */
  readonly timeoutMs?: number;
}

const PING_INTERVAL_MS = 15_000;
const PROBE_AFTER_MS = 1000;
const PATIENCE_TIMEOUTS = 3;
const RETRY_MS = 50;
/** A message whose loss costs little is given up after this time, so that a leader's death is noticed soon. */
export const ASK_AGAIN_MS = 2000;
const ASK_TIMES = 5;
const CLOSE_MS = 500;
const EXPLAIN_MS = 2000;
const REFUSALS: Record<string, string> = {
  [ErrorCode.AuthorizationViolation]: 'the NATS server refuses our credentials',
  [ErrorCode.AuthenticationExpired]: 'the NATS server no longer takes our credentials',
  [ErrorCode.AccountExpired]: 'the NATS server says that our account has expired',
  [ErrorCode.AuthenticationTimeout]: 'the NATS server took too long over our credentials',
};
const LOST = 'the connection to the NATS server was lost';

/** Connects; gives up after the timeout. Throws REPLICA, naming the servers, or USAGE for options that cannot be. */
export async function connectNats(
  servers: NatsServers | undefined,
  options: NatsOptions = {},
  env: Environment = process.env,
  onWarning: (message: string) => void = () => {},
): Promise<NatsLink> {
  const login = await resolveLogin(servers, options, env, onWarning);
  const tls = await resolveTls(options, login, env, onWarning);
  const timeoutMs = Math.min(options.timeoutMs ?? 10_000, LONGEST_TIMER_MS);
  const reconnectWaitMs = Math.min(options.reconnectWaitMs ?? 2000, LONGEST_TIMER_MS);
  const until = Date.now() + timeoutMs;
  const connecting: ConnectionOptions = {
    servers: await greetingFirst(login.hosts, timeoutMs).catch((error) => {
      throw connectError(error, login, timeoutMs);
    }),
    noRandomize: true,
    name: 'jetlite',
    timeout: Math.max(1, Math.floor(timeoutMs / login.hosts.length)),
    maxReconnectAttempts: options.maxReconnects ?? -1,
    reconnectTimeWait: reconnectWaitMs,
    pingInterval: PING_INTERVAL_MS,
    ignoreAuthErrorAbort: true,
    noAsyncTraces: true,
    // Resolving first gives TLS the host's name; without TLS the system's own resolver (hosts file) is enough.
    resolve: tls !== undefined,
    ...(tls === undefined ? {} : { tls }),
    ...(login.authenticator === undefined ? {} : { authenticator: login.authenticator }),
  };
  const sockets = new Sockets();
  const pending = sockets.during(() => connect(connecting));
  const giveUp = new AbortController();
  try {
    const connection = await Promise.race([pending, failWhenSlow(login.hosts, tls, until, giveUp.signal)]);
    const explain = () => whyRefused(login, tls, timeoutMs);
    return new NatsLink(connection, sockets, login, timeoutMs, explain, onWarning);
  } catch (error) {
    sockets.destroy();
    pending.then(
      (late) => late.close(),
      () => {},
    );
    throw connectError(error, login, timeoutMs);
  } finally {
    giveUp.abort();
  }
}

/** Rejects when the time is over, or as soon as it is known why no server is going to take us. */
async function failWhenSlow(
  hosts: readonly string[],
  tls: TlsOptions | undefined,
  until: number,
  signal: AbortSignal,
): Promise<never> {
  await delay(Math.max(0, Math.min(PROBE_AFTER_MS, until - Date.now())), undefined, { signal });
  const refusals = await Promise.all(hosts.map((host) => refusal(host, tls, until - Date.now())));
  const found = refusals.find((error) => error !== undefined);
  if (found === undefined || refusals.includes(undefined)) {
    await delay(Math.max(0, until - Date.now()), undefined, { signal });
  }
  throw found ?? NatsError.errorForCode(ErrorCode.Timeout);
}

/** In words, why none of the servers lets anybody in; undefined if one might, or does not say. */
async function whyRefused(
  login: Login,
  tls: TlsOptions | undefined,
  timeoutMs: number,
): Promise<string | undefined> {
  const lookMs = Math.min(timeoutMs, EXPLAIN_MS);
  const found = await Promise.all(login.hosts.map((host) => refusal(host, tls, lookMs)));
  if (found.some((error) => error === undefined || isPassing(error))) return undefined;
  return connectError(found[0], login, timeoutMs).message;
}

/** An open connection and its fate. */
export class NatsLink {
  readonly connection: NatsConnection;
  /** `nats://host:port,…`, nothing secret in it. */
  readonly url: string;
  readonly timeoutMs: number;
  /** How long anything is tried again before it is given up. */
  readonly patienceMs: number;
  readonly #sockets: Sockets;
  readonly #login: Login;
  readonly #explain: () => Promise<string | undefined>;
  readonly #onWarning: (message: string) => void;
  readonly #whenLost = new Set<(error: JetliteError) => void>();
  readonly #whenBack = new Set<() => void>();
  readonly #whenForbidden = new Set<(subject: string) => void>();
  #isConnected = true;
  /** Why the servers do not let us in again; undefined as long as it is not known. */
  #refusal: string | undefined;
  #wasAnswered = false;

  constructor(
    connection: NatsConnection,
    sockets: Sockets,
    login: Login,
    timeoutMs: number,
    explain: () => Promise<string | undefined>,
    onWarning: (message: string) => void,
  ) {
    this.connection = connection;
    this.#sockets = sockets;
    this.#login = login;
    this.url = `${login.tls ? 'tls' : 'nats'}://${login.hosts.join(',')}`;
    this.timeoutMs = timeoutMs;
    this.patienceMs = timeoutMs * PATIENCE_TIMEOUTS;
    this.#explain = explain;
    this.#onWarning = onWarning;
    void this.#follow();
  }

  /** The connection stands, as far as is known. */
  get isConnected(): boolean {
    return this.#isConnected;
  }

  /** Calls back once when the connection breaks, or at once if it is broken; the answer takes the wish back. */
  onLost(callback: (error: JetliteError) => void): () => void {
    if (this.#isConnected) this.#whenLost.add(callback);
    else queueMicrotask(() => callback(this.#error(LOST)));
    return () => this.#whenLost.delete(callback);
  }

  /** Calls back each time the connection stands again; the answer takes the wish back. */
  onReturn(callback: () => void): () => void {
    this.#whenBack.add(callback);
    return () => this.#whenBack.delete(callback);
  }

  /** Calls back with each subject to which the server does not let us publish; the answer takes the wish back. */
  onForbidden(callback: (subject: string) => void): () => void {
    this.#whenForbidden.add(callback);
    return () => this.#whenForbidden.delete(callback);
  }

  /** What the action comes to, or as soon as the connection breaks the error that says so. */
  async orLost<T>(action: Promise<T>): Promise<T> {
    let forget = () => {};
    const lost = new Promise<never>((_, reject) => {
      forget = this.onLost(reject);
    });
    // Whichever loses the race has nobody to tell.
    lost.catch(() => {});
    action.catch(() => {});
    try {
      return await Promise.race([action, lost]);
    } finally {
      forget();
    }
  }

  /**
   * Asks something that may be asked twice, again and again while nobody answers: the connection may be broken, or the
   * leader of a stream have died. Throws what the server refuses with, or the last error when patience is over.
   */
  async ask<T>(question: () => Promise<T>): Promise<T> {
    const until = Date.now() + this.patienceMs;
    for (;;) {
      const asking = new Asking(question);
      try {
        if (!this.#isConnected) await this.ready(Math.max(1, until - Date.now()));
        const answer = await this.orLost(asking.answer());
        this.#wasAnswered = true;
        return answer;
      } catch (error) {
        // Before the first answer, nobody there to answer means that JetStream is off.
        if (!isPassing(error) || !this.#wasAnswered || Date.now() > until) throw error;
      } finally {
        asking.end();
      }
      await delay(RETRY_MS);
    }
  }

  /** Resolves when a server answers. Throws REPLICA if none does in time, ABORTED by the signal. */
  async ready(patienceMs = this.patienceMs, signal?: AbortSignal): Promise<void> {
    const until = Date.now() + patienceMs;
    for (;;) {
      if (signal?.aborted) throw new JetliteError('ABORTED', 'waiting for the NATS server was stopped');
      if (this.connection.isClosed()) throw givenUp(this.url);
      const left = until - Date.now();
      if (left <= 0) {
        const why = this.#refusal ?? (await this.#explain());
        throw this.#error(why ?? `no answer from the NATS server within ${patienceMs / 1000} s`);
      }
      if (await answers(this.connection, Math.min(left, this.timeoutMs))) return;
      await delay(Math.min(RETRY_MS, left));
    }
  }

  async close(): Promise<void> {
    this.#whenLost.clear();
    // What was said last (a consumer is not needed any more) is still on its way.
    if (this.#isConnected) await answers(this.connection, CLOSE_MS);
    await this.connection.close();
    this.#sockets.destroy();
  }

  async #follow(): Promise<void> {
    for await (const status of this.connection.status()) {
      if (status.type === Events.Disconnect) {
        if (this.#isConnected) this.#onWarning(`${LOST} (${this.url}): connecting again`);
        this.#lose();
      }
      if (status.type === Events.Error && !this.#isConnected) this.#hearRefusal(`${status.data}`);
      if (status.type === Events.Error && status.permissionContext?.operation === 'publish') {
        for (const callback of [...this.#whenForbidden]) callback(status.permissionContext.subject);
      }
      // The client tells of one return as often as it was refused before.
      if (status.type === Events.Reconnect && !this.#isConnected) {
        this.#isConnected = true;
        this.#refusal = undefined;
        this.#onWarning(`connected again (${this.url})`);
        for (const callback of [...this.#whenBack]) callback();
      }
    }
    this.#lose();
  }

  #hearRefusal(code: string): void {
    if (REFUSALS[code] === undefined) return;
    const refusal = `${REFUSALS[code]}${expiry(this.#login)}`;
    if (refusal === this.#refusal) return;
    this.#refusal = refusal;
    this.#onWarning(`${refusal} (${this.url}): connecting again`);
  }

  #lose(): void {
    this.#isConnected = false;
    const callbacks = [...this.#whenLost];
    this.#whenLost.clear();
    for (const callback of callbacks) callback(this.#error(LOST));
  }

  #error(message: string): ConnectionLost {
    return new ConnectionLost(`${message} (${this.url})`);
  }
}

function givenUp(url: string): GivenUpError {
  return new GivenUpError(
    `connecting to the NATS server again was given up after max-reconnects tries (${url})`,
    {
      hint: 'Start again when the server is there; with max-reconnects -1 it is tried for ever.',
    },
  );
}

/**
 * What was sent to a leader that died is never answered, and a slow server may need its time: so a question is asked
 * anew every two seconds while the earlier ones stay open, and the first answer or refusal counts.
 */
class Asking<T> {
  readonly #question: () => Promise<T>;
  #timer: NodeJS.Timeout | undefined;
  #asked = 0;
  #open = 0;

  constructor(question: () => Promise<T>) {
    this.#question = question;
  }

  answer(): Promise<T> {
    return new Promise((resolve, reject) => {
      const askOnce = () => {
        this.#open++;
        if (++this.#asked === ASK_TIMES) this.end();
        this.#question().then(resolve, (error) => {
          this.#open--;
          if (this.#open === 0 || !isPassing(error)) reject(error);
        });
      };
      this.#timer = setInterval(askOnce, ASK_AGAIN_MS);
      askOnce();
    });
  }

  /** Asks no more. */
  end(): void {
    clearInterval(this.#timer);
  }
}

/** True if the server answers a ping in time. */
async function answers(connection: NatsConnection, timeoutMs: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), timeoutMs);
  });
  const answered = connection.flush().then(
    () => true,
    () => false,
  );
  try {
    return await Promise.race([answered, late]);
  } finally {
    clearTimeout(timer);
  }
}
