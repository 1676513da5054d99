/**
 * Why a connection gets no answer. With TLS 1.3 a server refuses a client's certificate only after the client's side of
 * the handshake is over; the NATS client then waits until its timeout and does not learn why. A probe goes the same
 * way by hand and keeps the reason.
 */

import { createConnection, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import type { TlsOptions } from 'nats';
import { splitHost } from './address.js';

/** Resolves with the error that a server at `host:port` answers with; undefined if none came in time. */
export function probe(
  address: string,
  tls: TlsOptions | undefined,
  timeoutMs: number,
): Promise<Error | undefined> {
  const { host, port } = splitHost(address);
  return new Promise((resolve) => {
    const sockets: Socket[] = [];
    const end = (error?: Error) => {
      clearTimeout(timer);
      resolve(error); // First: the end of the sockets is an event too.
      for (const socket of sockets) {
        // What still happens on the socket has been judged.
        socket.on('error', () => {});
        socket.destroy();
      }
    };
    const timer = setTimeout(end, timeoutMs);
    const plain = createConnection(port, host);
    sockets.push(plain);
    plain.on('error', end);
    plain.once('data', (bytes) => {
      const greeting = bytes.toString();
      if (!greeting.startsWith('INFO ')) {
        end(new NotNatsError());
      } else if (!/"tls_(required|available)":true/.test(greeting)) {
        end();
      } else {
        plain.removeAllListeners();
        const secure = connectTls({ ...tls, socket: plain });
        sockets.push(secure);
        secure.on('error', end);
        secure.once('data', () => end());
        secure.once('close', () => end());
      }
    });
  });
}

/** Something answers at the port, but it is no NATS server. */
export class NotNatsError extends Error {}
