/**
 * A look at servers before and beside the NATS client, for what it does not do: it never lets go of a connection to a
 * port that stays silent, and where a server refuses a client's certificate (with TLS 1.3 that comes after the client's
 * side of the handshake is over) or has no room for another connection, it waits for its timeout and cannot say why.
 */

import { createConnection, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { ErrorCode, NatsError, type TlsOptions } from 'nats';
import { splitHost } from './address.js';

const LONGEST_GREETING = 1024 * 1024;

/** Something answers at the port, but it is no NATS server. */
export class NotNatsError extends Error {
  /** It took the connection and dropped it without a word. */
  readonly saidNothing: boolean;

  constructor(saidNothing: boolean) {
    super();
    this.saidNothing = saidNothing;
  }
}

/** The server has as many clients as it takes. */
export class CrowdedError extends Error {}

interface Greeting {
  readonly socket: Socket;
  readonly asksForTls: boolean;
  readonly offersTls: boolean;
  /** What came with it. */
  readonly rest: string;
}

/**
 * The addresses with one that greets as NATS servers do first, as soon as one does. Throws the error of the first
 * address if none does within the timeout.
 */
export async function greetingFirst(addresses: readonly string[], timeoutMs: number): Promise<string[]> {
  const done = new AbortController();
  const greetings = addresses.map(async (address) => {
    await greeting(address, timeoutMs, done.signal);
    return address;
  });
  try {
    const first = await Promise.any(greetings);
    return [first, ...addresses.filter((address) => address !== first)];
  } catch (error) {
    throw (error as AggregateError).errors[0];
  } finally {
    done.abort();
  }
}

function greeting(address: string, timeoutMs: number, signal: AbortSignal): Promise<Greeting> {
  const { host, port } = splitHost(address);
  return new Promise((resolve, reject) => {
    let said = '';
    const socket = createConnection(port, host);
    const timer = setTimeout(() => fail(NatsError.errorForCode(ErrorCode.Timeout)), timeoutMs);
    const fail = (error: Error) => {
      clearTimeout(timer);
      reject(error);
      socket.destroy();
    };
    socket.on('error', fail);
    socket.once('close', () => fail(new NotNatsError(true)));
    socket.on('data', (bytes) => {
      said += bytes.toString();
      if (!said.startsWith('INFO '.slice(0, said.length)) || said.length > LONGEST_GREETING) {
        fail(new NotNatsError(false));
        return;
      }
      const end = said.indexOf('\r\n');
      if (end === -1) return;
      clearTimeout(timer);
      socket.removeAllListeners('data');
      try {
        const { tls_required, tls_available } = JSON.parse(said.slice(5, end)) as Record<string, unknown>;
        const rest = said.slice(end + 2);
        resolve({ socket, asksForTls: tls_required === true, offersTls: tls_available === true, rest });
      } catch {
        fail(new NotNatsError(false));
      }
    });
    signal.addEventListener('abort', () => fail(new Error('no longer of interest')), { once: true });
  });
}

/** Resolves with the error for which a server does not let us come so far as to log in; undefined if there was none in time. */
export async function refusal(
  address: string,
  tls: TlsOptions | undefined,
  timeoutMs: number,
): Promise<Error | undefined> {
  const done = new AbortController();
  const timer = setTimeout(() => done.abort(), timeoutMs);
  try {
    const { socket, asksForTls, offersTls, rest } = await greeting(address, timeoutMs, done.signal);
    return await new Promise((resolve) => {
      done.signal.addEventListener('abort', () => resolve(undefined), { once: true });
      socket.removeAllListeners();
      const encrypt = asksForTls || (tls !== undefined && offersTls);
      const stream = encrypt ? connectTls({ ...tls, socket }) : socket;
      stream.once('close', () => resolve(undefined));
      stream.on('data', (bytes) => resolve(crowdedError(bytes.toString())));
      stream.on('error', (error) => {
        resolve(encrypt ? error : undefined);
        stream.destroy();
      });
      if (crowdedError(rest) !== undefined) resolve(crowdedError(rest));
    });
  } catch (error) {
    return done.signal.aborted ? undefined : (error as Error);
  } finally {
    clearTimeout(timer);
    done.abort();
  }
}

/** Of what servers say by themselves; that we take too long to log in is none of a client's business. */
function crowdedError(said: string): CrowdedError | undefined {
  return /-ERR '[^']*connections exceeded'/i.test(said) ? new CrowdedError() : undefined;
}
