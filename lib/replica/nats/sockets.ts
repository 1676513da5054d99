/**
 * The sockets that one connection opens, so that none outlives it.
 *
 * The NATS client forgets the socket of an attempt that times out before the server has greeted: a server that stalls
 * would keep the process alive for as long as it likes. Node tells of every socket as it is made; what asks for it is
 * known by the asynchronous context, which spans the client's later attempts, too.
 */

import { AsyncLocalStorage } from 'node:async_hooks';
import { subscribe } from 'node:diagnostics_channel';
import type { Socket } from 'node:net';

const openers = new AsyncLocalStorage<Sockets>();
let isSubscribed = false;

export class Sockets {
  readonly #open = new Set<Socket>();
  #ended = false;

  /** Every socket that is made by `work`, or by what follows from it, belongs to these. */
  during<T>(work: () => T): T {
    if (!isSubscribed) {
      isSubscribed = true;
      subscribe('net.client.socket', (message) => {
        const opener = openers.getStore();
        if (opener !== undefined) opener.#add((message as { socket: Socket }).socket);
      });
    }
    return openers.run(this, work);
  }

  /** Destroys them all, those that are still to come too. */
  destroy(): void {
    this.#ended = true;
    for (const socket of this.#open) socket.destroy();
    this.#open.clear();
  }

  #add(socket: Socket): void {
    if (this.#ended) {
      // Not yet connected: destroying it now would come before its opener listens.
      setImmediate(() => socket.destroy());
      return;
    }
    for (const other of this.#open) if (other.destroyed) this.#open.delete(other);
    this.#open.add(socket);
  }
}
