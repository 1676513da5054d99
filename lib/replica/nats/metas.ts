/**
 * All metas of a bucket by one consumer: the last one of every name, then every new one as it comes.
 *
 * A meta that the server has but cannot read any more is counted as pending and never comes: when the server falls idle
 * before all have come, what there is to be read is asked for.
 */

import { JetliteError } from '../../errors.js';
import type { Bucket } from './bucket.js';
import { type Delivery, type OrderedConsumer, openConsumer } from './consumer.js';
import { ConsumerBroken } from './errors.js';
import { hasMessageFrom, metaFilter } from './objects.js';

export interface MetaEvents {
  deliver(delivery: Delivery): void;
  /** The last thing that is heard. */
  broken(why: Error): void;
}

/** The present has been delivered; what comes from now on is new. */
export interface OpenMetas {
  readonly consumer: OrderedConsumer;
  /** Stream sequence of the last meta that was delivered; 0 if there was none. */
  readonly sequence: number;
  /** False where the server has metas that it cannot read. */
  readonly isWhole: boolean;
}

/** So often a server may have nothing to send although it has more: its copy of the stream is not the leader's. */
const IDLE_PATIENCE = 3;

/**
 * Resolves when the present has been delivered. It may have to begin again: then `listen` is called once more. Throws
 * what the server refuses with, REPLICA, or why the consumer broke.
 */
export async function openMetas(
  bucket: Bucket,
  listen: () => MetaEvents,
  isOver: () => boolean = () => false,
): Promise<OpenMetas> {
  let taken = 0;
  let wanted = Number.POSITIVE_INFINITY;
  let sequence = 0;
  let failure: Error | undefined;
  let idle = false;
  let idleTimes = 0;
  let wake = () => {};
  const consumer = await openConsumer(bucket, metaFilter(bucket), { policy: 'last-per-subject' }, () => {
    taken = 0;
    sequence = 0;
    failure = undefined;
    const events = listen();
    return {
      deliver: (delivery) => {
        taken = delivery.number;
        sequence = delivery.sequence;
        idle = false;
        events.deliver(delivery);
        if (taken >= wanted) wake();
      },
      flowControl: (answer) => answer(),
      idle: () => {
        idle = true;
        wake();
      },
      broken: (why) => {
        failure = why;
        events.broken(why);
        wake();
      },
    };
  });
  wanted = consumer.pending;
  while (taken < wanted && failure === undefined && !isOver()) {
    if (idle) {
      idle = false;
      if (!(await hasMessageFrom(bucket, metaFilter(bucket), sequence + 1))) break;
      if (++idleTimes === IDLE_PATIENCE) {
        failure = new ConsumerBroken('the server does not send all metas', bucket.name, bucket.link.url);
      }
      continue;
    }
    await new Promise<void>((resolve) => {
      wake = resolve;
    });
  }
  if (failure !== undefined || isOver()) {
    consumer.close();
    throw failure ?? new JetliteError('ABORTED', 'the replica was closed');
  }
  return { consumer, sequence, isWhole: taken >= wanted };
}
