/**
 * One shot: brings a replica up to the database's present state and ends.
 */

import { performance } from 'node:perf_hooks';
import { Capture, type CaptureEvent } from '../capture/capture.js';
import type { Replica } from '../replica/replica.js';
import { putBatch } from './put-batch.js';
import { loadReplicaState } from './replica-state.js';
import { stateFolder } from './state-folder.js';

export interface BackupProgress {
  readonly phase: 'compare' | 'read' | 'upload';
  readonly bytes: number;
  readonly totalBytes: number;
}

export interface BackupOptions {
  /** Path of the database. */
  readonly database: string;
  readonly replica: Replica;
  /** Where files go that memory cannot hold; by default `.<name>-jetlite` beside the database. */
  readonly stateDir?: string;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: BackupProgress) => void;
  readonly onEvent?: (event: CaptureEvent) => void;
}

export interface BackupResult {
  /** The state the replica is at now. */
  readonly txid: bigint;
  readonly kind: 'snapshot' | 'incremental' | 'unchanged';
  readonly pageSize: number;
  /** Size of the database in pages. */
  readonly pageCount: number;
  readonly pagesWritten: number;
  /** Size of the LTX file, bytes. */
  readonly bytesWritten: number;
  readonly durationMs: number;
}

/**
 * @throws JetliteError DATABASE, FORMAT (the source), CAPTURE (no consistent image), REPLICA, CONFLICT (another writer),
 * NOT_FOUND (the replica's chain has a hole)
 */
export async function backup(options: BackupOptions): Promise<BackupResult> {
  const started = performance.now();
  const { replica, signal, onProgress } = options;
  const capture = Capture.open({
    database: options.database,
    scratchDir: stateFolder(options.database, options.stateDir),
    fileEvents: false,
    ...(signal && { signal }),
    ...(options.onEvent && { onEvent: options.onEvent }),
    onProgress: (bytes, totalBytes) => onProgress?.({ phase: 'read', bytes, totalBytes }),
  });
  try {
    const state = await loadReplicaState(replica, capture.pageSize, capture.sums, signal, (progress) =>
      onProgress?.({ phase: 'compare', ...progress }),
    );
    for (;;) {
      if ((await capture.poll()) !== 'wait') break;
      await capture.wait(10, signal);
    }
    const batch = capture.take();
    const common = { pageSize: capture.pageSize, pageCount: capture.sums.pageCount };
    if (batch === undefined) {
      return {
        ...common,
        txid: state.txid,
        kind: 'unchanged',
        pagesWritten: 0,
        bytesWritten: 0,
        durationMs: performance.now() - started,
      };
    }
    const txid = state.txid + 1n;
    const file = await putBatch(
      replica,
      { ...batch, timestampMs: Math.max(batch.timestampMs, state.timestampMs) },
      txid,
      signal,
    );
    return {
      ...common,
      txid,
      kind: txid === 1n ? 'snapshot' : 'incremental',
      pagesWritten: batch.pages.size,
      bytesWritten: file.size,
      durationMs: performance.now() - started,
    };
  } finally {
    capture.close();
  }
}
