/**
 * A way to a nats-server on which answers get lost: between a client and the server, it lets messages through, swallows
 * the answer to one, or cuts the connection before or behind one.
 */

import { connect, createServer, type Socket } from 'node:net';
import type { NatsServer } from './nats-server.js';

/**
 * What becomes of a message that the client publishes: it passes; never arrives; nor does what follows, the connection cut; is
 * stored and its answer swallowed; is stored, answered, and the connection cut in the answer's place; is held up until
 * one comes that releases what is held, which goes first. Or the server's answer is replaced by a text of the protocol, of
 * which `INBOX` stands for the subject and its number, `SID`, for the subscription.
 */
export type Fate =
  | 'pass'
  | 'drop'
  | 'cut before'
  | 'swallow answer'
  | 'cut answer'
  | 'hold'
  | 'release'
  | { readonly answer: string };

export interface NatsProxy {
  /** `nats://127.0.0.1:PORT` */
  readonly url: string;
  readonly port: number;
}

/** `fateOf` hears the subject of each published message that wants an answer. */
export async function startNatsProxy(
  t: { after(action: () => Promise<void>): void },
  server: NatsServer,
  fateOf: (subject: string) => Fate,
): Promise<NatsProxy> {
  const sockets = new Set<Socket>();
  const listener = createServer((client) => {
    const upstream = connect(server.port, '127.0.0.1');
    const cut = () => {
      client.destroy();
      upstream.destroy();
    };
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.setNoDelay(true);
      socket.on('error', cut);
      socket.on('close', () => {
        sockets.delete(socket);
        cut();
      });
    }
    const held: Buffer[] = [];
    const fates = new Map<string, Fate>();
    /** What a consumer sends arrives under the subject of the stream, told apart by its subscription. */
    const inboxes = new Map<string, string>();
    relay(client, upstream, ([verb, subject, inbox], count, frame) => {
      if (verb === 'SUB') inboxes.set(inbox, subject);
      if ((verb !== 'PUB' && verb !== 'HPUB') || count < (verb === 'PUB' ? 4 : 5)) return 'pass';
      const fate = fateOf(subject);
      if (fate === 'hold') held.push(frame);
      else if (fate === 'release') for (const late of held.splice(0)) upstream.write(late);
      else if (fate === 'cut before') cut();
      else if (fate !== 'pass' && fate !== 'drop') fates.set(inbox, fate);
      return fate === 'drop' || fate === 'hold' || fate === 'cut before' ? 'swallow' : 'pass';
    });
    relay(upstream, client, ([verb, subject, sid]) => {
      if (verb !== 'MSG' && verb !== 'HMSG') return 'pass';
      const inbox = fates.has(subject) ? subject : (inboxes.get(sid) ?? '');
      const fate = fates.get(inbox);
      if (fate === undefined) return 'pass';
      fates.delete(inbox);
      if (fate === 'cut answer') cut();
      if (typeof fate === 'object') client.write(fate.answer.replace('INBOX', inbox).replace('SID', sid));
      return 'swallow';
    });
  });
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  t.after(async () => {
    for (const socket of sockets) socket.destroy();
    listener.close();
  });
  const { port } = listener.address() as { port: number };
  return { url: `nats://127.0.0.1:${port}`, port };
}

/** Copies one side's protocol to the other, a line with its payload at a time, as `judge` lets it. */
function relay(
  from: Socket,
  to: Socket,
  judge: (words: string[], count: number, frame: Buffer) => 'pass' | 'swallow',
): void {
  let held: Buffer = Buffer.alloc(0);
  from.on('data', (bytes) => {
    held = held.length === 0 ? (bytes as Buffer) : Buffer.concat([held, bytes as Buffer]);
    for (;;) {
      const lineEnd = held.indexOf('\r\n');
      if (lineEnd < 0) return;
      const words = held.toString('latin1', 0, lineEnd).split(' ');
      const hasPayload = /^H?(PUB|MSG)$/.test(words[0]);
      const end = lineEnd + 2 + (hasPayload ? Number(words[words.length - 1]) + 2 : 0);
      if (held.length < end) return;
      const frame = held.subarray(0, end);
      held = held.subarray(end);
      if (judge(words, words.length, frame) === 'pass' && !to.destroyed) to.write(frame);
    }
  });
}
