/** A database that Jetlite and Litestream replicate by turns to one replica, and the proof that both restore all of it. */

import assert from 'node:assert/strict';
import { readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { backup } from '../../lib/jobs/backup.js';
import { restore } from '../../lib/jobs/restore.js';
import { formatTxid } from '../../lib/ltx/header.js';
import { namesIn } from '../../lib/replica/durable-file.js';
import { openReplica } from '../../lib/replica/open.js';
import type { LtxFileInfo, Replica } from '../../lib/replica/replica.js';
import { CaptureStage } from './capture-stage.js';
import {
  type Litestream,
  type LitestreamReplication,
  type LitestreamSettings,
  realLitestream,
} from './litestream.js';
import { makeBucket } from './nats-replica.js';
import { type NatsServer, startNatsServer } from './nats-server.js';
import { OracleChecker } from './oracle/check.js';
import type { OracleWriter, WriterOptions } from './oracle/writer.js';

export type HomeName = 'a folder' | 'NATS';

export class BothPrograms {
  readonly stage: CaptureStage;
  readonly litestream: Litestream;
  /** A folder or a URL, as both programs take it. */
  readonly url: string;
  replica: Replica;
  readonly writer: OracleWriter;
  readonly #server: NatsServer | undefined;

  private constructor(
    stage: CaptureStage,
    litestream: Litestream,
    replica: Replica,
    writer: OracleWriter,
    server?: NatsServer,
  ) {
    this.stage = stage;
    this.litestream = litestream;
    this.url = server === undefined ? stage.replica : `${server.url}/both`;
    this.replica = replica;
    this.writer = writer;
    this.#server = server;
  }

  /** Undefined, and the test skipped, where one of the programs is missing. The writer waits for `commit`. */
  static async open(
    t: TestContext,
    home: HomeName = 'a folder',
    work: WriterOptions = {},
  ): Promise<BothPrograms | undefined> {
    const litestream = realLitestream(t);
    const stage = litestream && (await CaptureStage.open(t));
    if (litestream === undefined || stage === undefined) return undefined;
    let server: NatsServer | undefined;
    if (home === 'NATS') {
      server = await startNatsServer(t);
      if (server === undefined) return undefined;
      await makeBucket(server, 'both');
    }
    const replica = await openReplica(server === undefined ? stage.replica : `${server.url}/both`, {
      env: {},
    });
    const writer = await stage.writer({ paused: true, sizes: [[1, 1, 40]], rows: [100, 400], ...work });
    const both = new BothPrograms(stage, litestream, replica, writer, server);
    t.after(() => both.replica.close());
    return both;
  }

  /** As another process would see the replica, without memory of what stood there. */
  async reopen(): Promise<void> {
    await this.replica.close();
    this.replica = await openReplica(this.url, { env: {} });
  }

  get database(): string {
    return this.stage.database;
  }

  /** Where Litestream keeps its own files. */
  get litestreamFolder(): string {
    return join(this.database, '..', '.app.db-litestream');
  }

  /** Level-0 TXIDs that Litestream has in its own folder, ascending. */
  async kept(): Promise<string[]> {
    const names = await namesIn(join(this.litestreamFolder, 'ltx', '0'));
    return names
      .filter((name) => name.endsWith('.ltx'))
      .map((name) => name.slice(0, 16))
      .sort();
  }

  async commit(count = 1): Promise<void> {
    await this.writer.command(`step ${count}`);
  }

  startLitestream(settings: LitestreamSettings = {}): Promise<LitestreamReplication> {
    return this.litestream.replicate(this.database, this.url, settings);
  }

  /** So many times a commit that becomes a TXID of its own, uploaded by Litestream. */
  async commitThroughLitestream(times: number): Promise<void> {
    for (let i = 0; i < times; i++) {
      const before = await this.newestTxid();
      await this.commit();
      await until(async () => (await this.newestTxid()) > before, 'an upload by Litestream');
    }
  }

  /** So many times a commit that becomes a TXID of its own, put by `backup`. */
  async commitThroughBackup(times: number): Promise<void> {
    for (let i = 0; i < times; i++) {
      await this.commit();
      await backup({ database: this.database, replica: this.replica });
    }
  }

  async newestTxid(): Promise<bigint> {
    const files = await this.replica.list(0);
    return files.reduce((highest, { maxTxid }) => (maxTxid > highest ? maxTxid : highest), 0n);
  }

  /** While `work` goes on nothing can be put into the replica. */
  async withReplicaAway(work: () => Promise<void>): Promise<void> {
    const away = `${this.stage.replica}.away`;
    if (this.#server !== undefined) await this.#server.kill();
    else {
      await rename(this.stage.replica, away);
      await writeFile(this.stage.replica, 'no folder');
    }
    await work();
    if (this.#server !== undefined) await this.#server.restart();
    else {
      await rm(this.stage.replica);
      await rename(away, this.stage.replica);
    }
  }

  /** Litestream, which is running, takes up so many commits that it cannot upload, and is killed. */
  async killWithFilesKept(running: LitestreamReplication, count: number): Promise<void> {
    await this.withReplicaAway(async () => {
      for (let i = 0; i < count; i++) {
        const before = (await this.kept()).length;
        await this.commit();
        await until(async () => (await this.kept()).length > before, 'a local file of Litestream');
      }
      await running.kill();
    });
  }

  /**
   * Every TXID of level 0 restores to the same bytes by both programs, to a state that was committed, and never an older
   * one than the TXID before. With the newest, the writer is where it should be.
   */
  async prove(): Promise<LtxFileInfo[]> {
    const checker = new OracleChecker();
    const ledger = this.stage.ledger();
    const files = await this.replica.list(0);
    try {
      let seq = 0;
      for (const { maxTxid: txid } of files) {
        const state = await checker.prove(await this.restoreByBoth({ txid }));
        assert.equal(state.digest, ledger.digestOf(state.seq), `TXID ${txid} at commit ${state.seq}`);
        assert.ok(state.seq >= seq, `TXID ${txid} is at commit ${state.seq}, after ${seq}`);
        seq = state.seq;
      }
      const newest = await checker.prove(await this.restoreByBoth());
      assert.equal(newest.seq, ledger.newest?.seq, 'the newest commit');
    } finally {
      await checker.close();
    }
    return files;
  }

  /** `litestream ltx` lists the very files that we do: these. */
  async filesOfBoth(): Promise<LtxFileInfo[]> {
    const files = await this.replica.list();
    const theirs = await this.litestream.files(this.url);
    assert.deepEqual(
      files.map(({ level, minTxid, maxTxid, size, timestampMs }) => [
        level,
        formatTxid(minTxid),
        formatTxid(maxTxid),
        size,
        Math.floor(timestampMs / 1000),
      ]),
      theirs.map(({ level, minTxid, maxTxid, size, timestamp }) => [
        level,
        minTxid,
        maxTxid,
        size,
        Math.floor(Date.parse(timestamp) / 1000),
      ]),
    );
    return files;
  }

  /** Restores one state by both programs; what they made is equal, and where ours is is the answer. */
  async restoreByBoth(wish: { txid?: bigint; timestampMs?: number } = {}): Promise<string> {
    const { txid, timestampMs } = wish;
    const [ours, theirs] = ['ours', 'theirs'].map((name) => join(this.stage.folder, `${name}.db`)) as [
      string,
      string,
    ];
    await rm(theirs, { force: true });
    await restore({ replica: this.replica, output: ours, force: true, ...wish });
    await this.litestream.restore(this.url, theirs, {
      ...(txid !== undefined && { txid: formatTxid(txid) }),
      ...(timestampMs !== undefined && { timestamp: new Date(timestampMs).toISOString() }),
    });
    const what = txid === undefined ? `the state ${timestampMs ?? 'now'}` : `TXID ${formatTxid(txid)}`;
    assert.ok(
      (await readFile(ours)).equals(await readFile(theirs)),
      `${what}: both programs' restores differ`,
    );
    return ours;
  }
}

/** Looks until it is so; throws after 30 s. */
export async function until(isSo: () => Promise<boolean>, what: string): Promise<void> {
  for (let tries = 0; !(await isSo()); tries++) {
    if (tries === 1200) throw new Error(`waited in vain for ${what}`);
    await delay(25);
  }
}
