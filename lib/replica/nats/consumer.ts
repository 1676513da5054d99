/**
 * An ordered push consumer: the messages of one filter, in stream order, each once, or word that the order broke.
 *
 * 1. A consumer of ours lives in the server's memory and acknowledges nothing. The server numbers what it delivers; a
 *    number that is not the next one, a heartbeat that names a later one, silence, a lost connection or a status that
 *    ends the consumer breaks it, once and for good. Whoever uses it goes on with a new one.
 * 2. The server stops at a flow-control request until it is answered; answering late bounds what waits here. Who may not
 *    answer gets no more than fits before such a request. The server refuses the answer without saying to whom it was
 *    given, and its heartbeats go on: only together with one that shows it waiting is the refusal the consumer's end.
 * 3. `pending` is counted by the server when it makes the consumer: that many messages are the present.
 */

import {
  AckPolicy,
  createInbox,
  DeliverPolicy,
  type Msg,
  nanos,
  nuid,
  ReplayPolicy,
  type Subscription,
} from 'nats';
import type { Bucket } from './bucket.js';
import { ASK_AGAIN_MS } from './connect.js';
import { ConsumerBroken, isPassing, mayNotPublish } from './errors.js';

const HEARTBEAT_MS = 2000;
/** How often to look whether anything came, and how often in a row nothing is silence. */
const LISTEN_MS = 4000;
const SILENT_TIMES = 3;
/** A consumer that hears nothing is broken by then. */
export const SILENCE_MS = LISTEN_MS * (SILENT_TIMES + 1);
/** After this time without anyone listening the server forgets the consumer. */
const FORGET_AFTER_MS = 30_000;

export type StartAt = { readonly policy: 'last-per-subject' | 'all' } | { readonly sequence: number };

/** One message as it was delivered. */
export interface Delivery {
  readonly message: Msg;
  /** Its sequence in the stream. */
  readonly sequence: number;
  /** Its place among what this consumer delivered, from 1. */
  readonly number: number;
  readonly timestampMs: number;
}

export interface ConsumerEvents {
  deliver(delivery: Delivery): void;
  /** The server waits for the answer before it sends more. */
  flowControl(answer: () => void): void;
  /**
   * Everything that was sent has come, and for some seconds there was nothing to send. Fewer messages than `pending` by
   * then: perhaps the server cannot read the others in its store, which it passes over without a word.
   */
  idle(): void;
  broken(why: Error): void;
}

/**
 * Makes a consumer; resolves when the server has counted what is pending. While no server answers it is tried again,
 * each time with events of its own from `listen`. Throws what the server refuses with, or REPLICA.
 */
export async function openConsumer(
  bucket: Bucket,
  filter: string,
  start: StartAt,
  listen: () => ConsumerEvents,
): Promise<OrderedConsumer> {
  const { link } = bucket;
  const until = Date.now() + link.patienceMs;
  for (let waitMs = ASK_AGAIN_MS; ; waitMs *= 2) {
    const consumer = new OrderedConsumer(bucket, listen());
    try {
      await consumer.open(filter, start, Math.min(waitMs, link.timeoutMs));
      return consumer;
    } catch (error) {
      consumer.close();
      if (!isPassing(error) || Date.now() > until) throw error;
    }
    await link.ready();
  }
}

export class OrderedConsumer {
  readonly #bucket: Bucket;
  readonly #events: ConsumerEvents;
  readonly #name = nuid.next();
  #subscription: Subscription | undefined;
  #forgetLost: () => void = () => {};
  #forgetForbidden: () => void = () => {};
  #listening: NodeJS.Timeout | undefined;
  /** Whether anything came since the last look, and how many looks nothing had come. */
  #heard = false;
  #silentTimes = 0;
  #delivered = 0;
  #pending = 0;
  /** The server refused an answer to its flow control. */
  #mayNotAnswer = false;
  #ended = false;

  constructor(bucket: Bucket, events: ConsumerEvents) {
    this.#bucket = bucket;
    this.#events = events;
  }

  /** Messages that the filter had, from the start on, when the consumer was made. */
  get pending(): number {
    return this.#pending;
  }

  async open(filter: string, start: StartAt, timeoutMs: number): Promise<void> {
    const { link, stream } = this.#bucket;
    const manager = await link.connection.jetstreamManager({ timeout: timeoutMs, checkAPI: false });
    const inbox = createInbox();
    this.#listening = setInterval(() => this.#listen(), LISTEN_MS);
    this.#forgetLost = link.onLost((error) => this.#break(error));
    this.#forgetForbidden = link.onForbidden((subject) => {
      // `$JS.FC.<stream>.<consumer>.<request>`
      if (subject.split('.').includes(this.#name)) this.#mayNotAnswer = true;
    });
    this.#subscription = link.connection.subscribe(inbox, {
      callback: (error, message) => (error ? this.#break(error) : this.#take(message)),
    });
    const creating = manager.consumers.add(stream, {
      name: this.#name,
      deliver_subject: inbox,
      filter_subject: filter,
      ack_policy: AckPolicy.None,
      replay_policy: ReplayPolicy.Instant,
      flow_control: true,
      idle_heartbeat: nanos(HEARTBEAT_MS),
      inactive_threshold: nanos(FORGET_AFTER_MS),
      max_deliver: 1,
      mem_storage: true,
      num_replicas: 1,
      ...('sequence' in start
        ? { deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: start.sequence }
        : { deliver_policy: start.policy === 'all' ? DeliverPolicy.All : DeliverPolicy.LastPerSubject }),
    });
    const info = await link.orLost(creating);
    // What arrived before this answer is counted in `delivered`, not in `num_pending`.
    this.#pending = info.num_pending + info.delivered.consumer_seq;
  }

  close(): void {
    if (this.#ended) return;
    this.#end();
    // The server would forget it by itself; nobody waits for this.
    this.#bucket.manager.consumers.delete(this.#bucket.stream, this.#name).catch(() => {});
  }

  #take(message: Msg): void {
    if (this.#ended) return;
    // Looked at now and then: a timer that each of many thousand messages puts off costs as much as reading them.
    this.#heard = true;
    const reply = message.reply ?? '';
    // Headers are decoded when they are looked at: only where the reply subject shows that it is no message.
    if (reply.startsWith('$JS.ACK.')) this.#takeMessage(deliveryOf(message, reply));
    else this.#takeStatus(message, message.headers?.code ?? 0);
  }

  #takeMessage(delivery: Delivery): void {
    if (delivery.number === this.#delivered + 1) {
      this.#delivered = delivery.number;
      this.#events.deliver(delivery);
    } else {
      this.#breakOff(`message ${delivery.number} came after message ${this.#delivered}`);
    }
  }

  #takeStatus(message: Msg, status: number): void {
    const { headers } = message;
    if (status !== 100) {
      this.#breakOff(`the server ended the consumer: ${status} ${headers?.description}`);
    } else if (message.reply) {
      this.#events.flowControl(() => message.respond());
    } else {
      this.#takeHeartbeat(
        Number(headers?.get('Nats-Last-Consumer') || 0),
        headers?.get('Nats-Consumer-Stalled'),
      );
    }
  }

  #takeHeartbeat(delivered: number, stalled: string | undefined): void {
    if (delivered !== this.#delivered) {
      this.#breakOff(`the server delivered ${delivered} messages, ${this.#delivered} came`);
    } else if (stalled && this.#mayNotAnswer && this.#delivered < this.#pending) {
      this.#break(mayNotPublish(`$JS.FC.${this.#bucket.stream}.>`));
    } else if (stalled) {
      this.#events.flowControl(() => this.#bucket.link.connection.publish(stalled));
    } else {
      this.#events.idle();
    }
  }

  #listen(): void {
    this.#silentTimes = this.#heard ? 0 : this.#silentTimes + 1;
    this.#heard = false;
    if (this.#silentTimes === SILENT_TIMES) this.#breakOff('the server pushes nothing');
  }

  #breakOff(why: string): void {
    const { name, link } = this.#bucket;
    this.#break(new ConsumerBroken(why, name, link.url));
  }

  #break(why: Error): void {
    if (this.#ended) return;
    this.#end();
    this.#events.broken(why);
  }

  #end(): void {
    this.#ended = true;
    clearInterval(this.#listening);
    this.#forgetLost();
    this.#forgetForbidden();
    this.#subscription?.unsubscribe();
  }
}

const DOT = 0x2e;
const ZERO = 0x30;
const SHORT_REPLY_DOTS = 8;
/** Of a time in nanoseconds: those below a millisecond. */
const NANO_DIGITS = 6;
/** Where the dots of a reply subject are: one for all, since nothing keeps it. */
const dots = new Uint16Array(16);

/**
 * Reads the numbers that the server puts into a reply subject: `$JS.ACK.<stream>.<consumer>.<deliveries>.<stream
 * sequence>.<consumer sequence>.<nanoseconds>.<pending>`, with domain and account before the stream in newer ones.
 */
export function deliveryOf(message: Msg, reply: string): Delivery {
  let count = 0;
  for (let i = 0; i < reply.length; i++) {
    if (reply.charCodeAt(i) === DOT) dots[count++ % dots.length] = i;
  }
  const at = count > SHORT_REPLY_DOTS ? 6 : 4;
  return {
    message,
    sequence: numberIn(reply, dots[at] + 1, dots[at + 1]),
    number: numberIn(reply, dots[at + 1] + 1, dots[at + 2]),
    timestampMs: numberIn(reply, dots[at + 2] + 1, dots[at + 3] - NANO_DIGITS),
  };
}

/** The decimal number between two places in a text. */
function numberIn(text: string, from: number, to: number): number {
  let value = 0;
  for (let i = from; i < to; i++) value = value * 10 + text.charCodeAt(i) - ZERO;
  return value;
}
