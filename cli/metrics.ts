/**
 * What `replicate` counts, in Prometheus' words: totals end in `_total`, sizes are bytes, times are seconds since the epoch.
 * Each figure has the database's path as its label.
 */

import { Counter, Gauge, Registry } from 'prom-client';
import type { ReplicateEvent } from '../lib/jobs/session/replicate-event.js';

type ByDatabase = 'database';

export class Metrics {
  readonly #registry = new Registry();
  readonly #txid = this.#gauge('jetlite_durable_txid', 'Newest TXID that the replica has acknowledged.');
  readonly #durableAt = this.#gauge(
    'jetlite_durable_timestamp_seconds',
    'Time of the newest commit that the replica has acknowledged.',
  );
  readonly #away = this.#gauge('jetlite_replica_away', '1 while the replica is out of reach, else 0.');
  readonly #failed = this.#gauge(
    'jetlite_failed',
    '1 once the replication of this database has failed, else 0.',
  );
  readonly #commits = this.#counter('jetlite_commits_total', 'Commits that became durable.');
  readonly #files = this.#counter('jetlite_files_total', 'Level-0 files put.');
  readonly #bytes = this.#counter('jetlite_bytes_total', 'Size of the level-0 files put.');
  readonly #images = this.#counter('jetlite_images_total', 'Images that took the place of following.');
  readonly #gaps = this.#counter(
    'jetlite_gaps_total',
    'Times that commits may have been missed and pages were compared.',
  );
  readonly #spooled = this.#counter(
    'jetlite_spooled_files_total',
    'Level-0 files that had to wait on disk for the replica.',
  );
  readonly #lost = this.#counter(
    'jetlite_lost_files_total',
    'Files that the replica lost after it had acknowledged them.',
  );
  readonly #unhealed = this.#gauge(
    'jetlite_replica_damaged',
    '1 from the moment a loss is found until it is healed, else 0.',
  );
  readonly #healedAt = this.#gauge(
    'jetlite_healed_timestamp_seconds',
    'When the last loss was healed; absent if there was none.',
  );

  /** Shows all figures of a database from the start, not only once they move. */
  add(database: string): void {
    for (const metric of [this.#away, this.#failed, this.#unhealed]) metric.set({ database }, 0);
    for (const metric of this.#totals()) metric.inc({ database }, 0);
  }

  take(database: string, event: ReplicateEvent): void {
    switch (event.type) {
      case 'ready':
        this.#txid.set({ database }, Number(event.txid));
        break;
      case 'put':
        this.#txid.set({ database }, Number(event.file.maxTxid));
        this.#durableAt.set({ database }, event.file.timestampMs / 1000);
        this.#commits.inc({ database }, event.commits);
        this.#files.inc({ database });
        this.#bytes.inc({ database }, event.file.size);
        break;
      case 'spooled':
        this.#spooled.inc({ database });
        break;
      case 'lost':
        this.#lost.inc({ database }, event.files.length);
        this.#unhealed.set({ database }, 1);
        break;
      case 'healed':
        this.#unhealed.set({ database }, 0);
        this.#healedAt.set({ database }, Date.now() / 1000);
        break;
      case 'image':
        this.#images.inc({ database });
        break;
      case 'gap':
        this.#gaps.inc({ database });
        break;
    }
  }

  setAway(database: string, isAway: boolean): void {
    this.#away.set({ database }, isAway ? 1 : 0);
  }

  fail(database: string): void {
    this.#failed.set({ database }, 1);
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  text(): Promise<string> {
    return this.#registry.metrics();
  }

  #totals(): Counter<ByDatabase>[] {
    return [this.#commits, this.#files, this.#bytes, this.#images, this.#gaps, this.#spooled, this.#lost];
  }

  #gauge(name: string, help: string): Gauge<ByDatabase> {
    return new Gauge({ name, help, labelNames: ['database'], registers: [this.#registry] });
  }

  #counter(name: string, help: string): Counter<ByDatabase> {
    return new Counter({ name, help, labelNames: ['database'], registers: [this.#registry] });
  }
}
