/** `jetlite restore --follow` as it runs: events to the log, the result when it was stopped. */

import type { FollowResult } from '../lib/jobs/follow.js';
import { formatTxid } from '../lib/ltx/header.js';
import type { Replica } from '../lib/replica/replica.js';
import { type Context, EXIT_DONE } from './command.js';
import { formatMoment } from './format.js';

export interface FollowArgs {
  readonly output: string;
  readonly force: boolean;
  readonly mode: number | undefined;
  readonly integrityCheck: 'none' | 'quick' | 'full';
  readonly parallelism: number | undefined;
  readonly json: boolean;
}

/** Runs until the context's signal fires. */
export async function followReplica(replica: Replica, args: FollowArgs, context: Context): Promise<number> {
  const { terminal, log, signal } = context;
  const { output, force, mode, integrityCheck, parallelism } = args;
  const { follow } = await import('../lib/jobs/follow.js');
  const progress = terminal.progress();
  const result = await follow({
    replica,
    output,
    force,
    mode,
    integrityCheck,
    parallelism,
    signal,
    onProgress: ({ phase, bytes, totalBytes }) => progress.update(phase, bytes, totalBytes),
    onEvent: ({ type, level, message }) => {
      if (type === 'following') progress.end();
      log.write(level, message);
    },
  }).finally(() => progress.end());
  if (args.json) terminal.json(asJson(result, replica.url));
  else {
    const { txid, timestampMs, batches } = result;
    const state = `TXID ${formatTxid(txid)} of ${formatMoment(timestampMs)}`;
    terminal.result(`${result.output} stands at ${state}; ${batches} batches were added`);
  }
  return EXIT_DONE;
}

function asJson(result: FollowResult, replica: string): object {
  return {
    db_path: result.output,
    replica,
    restored: result.restored,
    txid: result.txid,
    timestamp: formatMoment(result.timestampMs),
    batches: result.batches,
    pages: result.pages,
  };
}
