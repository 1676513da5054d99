/**
 * A look at servers before and beside the NATS client, for two things it does not do: it never lets go of a connection
 * to a port that stays silent, and it does not learn why a server refuses a client's certificate (with TLS 1.3 that comes
 * after the client's side of the handshake is over; the client then waits for its timeout).
 */

import { createConnection, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { ErrorCode, NatsError, type TlsOptions } from 'nats';
import { splitHost } from './address.js';

/** Something answers at the port, but it is no NATS server. */
export class NotNatsError extends Error {
  /** It took the connection and dropped it without a word. */
  readonly saidNothing: boolean;

  constructor(saidNothing: boolean) {
    super();
    this.saidNothing = saidNothing;
  }
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

function greeting(address: string, timeoutMs: number, signal: AbortSignal): Promise<Socket> {
  const { host, port } = splitHost(address);
  return new Promise((resolve, reject) => {
    const socket = createConnection(port, host);
    const timer = setTimeout(() => fail(NatsError.errorForCode(ErrorCode.Timeout)), timeoutMs);
    const fail = (error: Error) => {
      clearTimeout(timer);
      reject(error);
      socket.destroy();
    };
    socket.on('error', fail);
    socket.once('close', () => fail(new NotNatsError(true)));
    socket.once('data', (bytes) => {
      clearTimeout(timer);
      if (bytes.toString().startsWith('INFO ')) resolve(socket);
      else fail(new NotNatsError(false));
    });
    signal.addEventListener('abort', () => fail(new Error('no longer of interest')), { once: true });
  });
}

/** Resolves with the error that a server ends a TLS handshake with; undefined if there was none in time. */
export async function tlsRefusal(
  address: string,
  tls: TlsOptions | undefined,
  timeoutMs: number,
): Promise<Error | undefined> {
  const done = new AbortController();
  const timer = setTimeout(() => done.abort(), timeoutMs);
  try {
    const plain = await greeting(address, timeoutMs, done.signal);
    return await new Promise((resolve) => {
      done.signal.addEventListener('abort', () => resolve(undefined), { once: true });
      plain.removeAllListeners();
      const secure = connectTls({ ...tls, socket: plain });
      secure.once('close', () => resolve(undefined));
      secure.once('data', () => resolve(undefined));
      secure.on('error', (error) => {
        resolve(error);
        secure.destroy();
      });
    });
  } catch (error) {
    return done.signal.aborted ? undefined : (error as Error);
  } finally {
    clearTimeout(timer);
    done.abort();
  }
}
