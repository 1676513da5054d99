/**
 * One shot: brings a replica up to the database's present state and ends.
 */

import { performance } from 'node:perf_hooks';
import { Capture, type CaptureEvent } from '../capture/capture.js';
import { ResumeState, type SumsOrigin } from '../capture/resume-state.js';
import type { Replica } from '../replica/replica.js';
import { writeAcknowledged } from './session/acknowledged.js';
import { putBatch, putStreamed } from './session/put-batch.js';
import { goOnWith } from './session/replica-state.js';
import { expectSameDatabase } from './session/same-database.js';
import { claimState, stateFolder } from './state-folder.js';
import { writeRecord } from './state-record.js';
import { writeSnapshotSums } from './tidy/snapshot-sums.js';

export interface BackupProgress {
  readonly phase: 'compare' | 'read' | 'upload';
  readonly bytes: number;
  readonly totalBytes: number;
}

export interface BackupOptions {
  /** Path of the database. */
  readonly database: string;
  readonly replica: Replica;
  /** Folder of what an earlier `replicate` left and of what memory cannot hold; by default `.<name>-jetlite` beside it. */
  readonly stateDir?: string;
  /** Go on with the replica also where nothing in it is this database's. */
  readonly allowOtherDatabase?: boolean;
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
 * @throws JetliteError DATABASE (the source, or the replica is another database's), FORMAT (the source), CAPTURE (no consistent image), REPLICA, CONFLICT (another writer),
 * NOT_FOUND (the replica's chain has a hole)
 */
export async function backup(options: BackupOptions): Promise<BackupResult> {
  const { database, stateDir, replica } = options;
  const all = stateFolder(database, stateDir);
  const { folder, release } = await claimState(all, database, replica.url, options.onEvent);
  try {
    return await backUp(options, folder);
  } finally {
    await release();
  }
}

async function backUp(options: BackupOptions, folder: string): Promise<BackupResult> {
  const started = performance.now();
  const { replica, signal, onProgress } = options;
  const state = new ResumeState(folder, (message) =>
    options.onEvent?.({ type: 'state', level: 'warn', message }),
  );
  const capture = Capture.open({
    database: options.database,
    scratchDir: stateFolder(options.database, options.stateDir),
    fileEvents: false,
    ...(signal && { signal }),
    ...(options.onEvent && { onEvent: options.onEvent }),
    onProgress: (bytes, totalBytes) => onProgress?.({ phase: 'read', bytes, totalBytes }),
  });
  let origin: SumsOrigin | undefined;
  try {
    await writeRecord(folder, replica.url);
    const before = await goOnWith(replica, capture, state, {
      signal,
      auditsNow: true,
      onEvent: options.onEvent,
      onProgress: (progress) => onProgress?.({ phase: 'compare', ...progress }),
    });
    if (before.lost !== undefined) {
      const message = `${replica.url} has lost files: ${before.lost}; the whole database is put`;
      options.onEvent?.({ type: 'state', level: 'warn', message });
    }
    let { txid } = before;
    let isNewcomer = txid !== 0n && !before.remembered && !options.allowOtherDatabase;
    let pagesWritten = 0;
    let bytesWritten = 0;
    let timestampMs = before.timestampMs;
    if (txid === 0n) {
      let checksum = 0n;
      const onChecksum = async (fileChecksum: bigint): Promise<void> => {
        checksum = fileChecksum;
      };
      const streamed = await putStreamed(replica, capture, { onChecksum, signal });
      if (streamed !== undefined) {
        txid = 1n;
        timestampMs = streamed.file.timestampMs;
        pagesWritten = streamed.pageCount;
        bytesWritten = streamed.file.size;
        if (streamed.isLate) capture.takeWhole('an earlier try to put TXID 1 arrived late');
        else {
          origin = { txid, fileChecksum: checksum };
          await writeSnapshotSums(replica, streamed.file, capture.sums, origin, capture.pageSize);
          if (!capture.hasPending) await state.writePoint({ ...origin, point: capture.point() });
        }
      }
    }
    for (let polled = 'more'; polled !== 'current'; ) {
      polled = await capture.poll();
      if (polled === 'wait') await capture.wait(10, signal);
      const batch = polled === 'wait' ? undefined : capture.take();
      if (batch === undefined) continue;
      if (isNewcomer) {
        const newcomer = { ...before, replica, database: options.database };
        const message = await expectSameDatabase(newcomer, batch);
        if (message !== undefined) options.onEvent?.({ type: 'state', level: 'warn', message });
        isNewcomer = false;
      }
      txid++;
      timestampMs = Math.max(batch.timestampMs, timestampMs);
      const onChecksum = async (fileChecksum: bigint): Promise<void> => {
        await state.writePoint({ txid, fileChecksum, point: batch.point });
        origin = { txid, fileChecksum };
      };
      const file = await putBatch(replica, batch, txid, { timestampMs, onChecksum, signal });
      pagesWritten += batch.pages.size;
      bytesWritten += file.size;
      capture.recycle(batch.pages);
    }
    if (origin !== undefined) {
      await state.writeSums(capture.sums, origin, capture.pageSize);
      await writeAcknowledged(state.folder, txid);
    }
    return {
      txid,
      kind:
        txid === before.txid
          ? 'unchanged'
          : before.txid === 0n || before.lost !== undefined
            ? 'snapshot'
            : 'incremental',
      pageSize: capture.pageSize,
      pageCount: capture.sums.pageCount,
      pagesWritten,
      bytesWritten,
      durationMs: performance.now() - started,
    };
  } finally {
    state.close();
    capture.close();
  }
}
