/**
 * Who leads a bucket's stream.
 *
 * What was sent to a leader that died is never answered, although the connection, which is to another server, stands. So
 * whoever misses an answer looks whether there is another leader by now: it has all that was acknowledged, and knows
 * nothing of the rest.
 */

import type { JetStreamManager, StreamInfo } from 'nats';

export class StreamLeader {
  readonly #manager: JetStreamManager;
  readonly #stream: string;
  #seen: string;

  /** @param info of the stream, as the server gave it just now */
  constructor(manager: JetStreamManager, info: StreamInfo) {
    this.#manager = manager;
    this.#stream = info.config.name;
    this.#seen = leadershipIn(info);
  }

  /** Names the leadership that was seen last. */
  get seen(): string {
    return this.#seen;
  }

  /** Names the present leadership: it is another one if another server leads. Rejects if nobody says. */
  async look(): Promise<string> {
    this.#seen = leadershipIn(await this.#manager.streams.info(this.#stream));
    return this.#seen;
  }
}

/** Newer servers tell since when, too, so that a leader which came back is another one. */
function leadershipIn({ cluster }: StreamInfo): string {
  const { leader = '', leader_since = '' } = (cluster ?? {}) as { leader?: string; leader_since?: string };
  return `${leader} ${leader_since}`;
}
