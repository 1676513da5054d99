/**
 * Readers of a live copy in other languages, each with an SQLite of its own: Go (modernc.org/sqlite), Java (sqlite-jdbc) and
 * Rust (rusqlite). They check what they see as reader.py does. Their packages are downloaded and built: in the long run only.
 */

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { copyFileSync, mkdirSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { openFileReplica } from '../../../lib/replica/file.js';
import { CaptureStage, LONG } from '../../support/capture-stage.js';
import { CopyReader } from '../../support/copy-reader.js';
import { FollowRun } from '../../support/follow-run.js';
import { proveState } from '../../support/oracle/check.js';
import { scratchFolder } from '../../support/scratch.js';

const run = promisify(execFile);
const BATCHES = 300;
/** The sources; they are not copied to dist. */
const SOURCES = fileURLToPath(new URL('../../../../test/live/follow/readers/', import.meta.url));

interface Language {
  /** Prints its version. */
  readonly toolchain: readonly [program: string, ...args: string[]];
  /** Builds the reader in an empty folder; the command that runs it. */
  build(sources: string, folder: string): Promise<string[]>;
}

const LANGUAGES: Record<string, Language> = {
  Go: {
    toolchain: ['go', 'version'],
    build: async (sources, folder) => {
      const program = join(folder, 'reader');
      await run('go', ['build', '-o', program, '.'], { cwd: join(sources, 'go') });
      return [program];
    },
  },
  Java: {
    toolchain: ['mvn', '--version'],
    build: async (sources, folder) => {
      for (const name of ['pom.xml', 'Reader.java'])
        copyFileSync(join(sources, 'java', name), join(folder, name));
      await run('mvn', ['-q', '-B', 'dependency:copy-dependencies', '-DoutputDirectory=packages'], {
        cwd: folder,
      });
      await run('javac', ['-cp', 'packages/*', '-d', 'classes', 'Reader.java'], { cwd: folder });
      const path = [join(folder, 'classes'), join(folder, 'packages', '*')].join(delimiter);
      return ['java', '-cp', path, 'Reader'];
    },
  },
  Rust: {
    toolchain: ['cargo', '--version'],
    build: async (sources, folder) => {
      mkdirSync(join(folder, 'src'));
      for (const name of ['Cargo.toml', 'src/main.rs'])
        copyFileSync(join(sources, 'rust', name), join(folder, name));
      await run('cargo', ['build', '--quiet'], { cwd: folder });
      return [join(folder, 'target', 'debug', 'reader')];
    },
  },
};

async function isThere([program, ...args]: Language['toolchain']): Promise<boolean> {
  return run(program, args).then(
    () => true,
    () => false,
  );
}

for (const [name, language] of Object.entries(LANGUAGES)) {
  test(`${name}: readers see whole committed states, never back in time`, async (t: TestContext) => {
    if (!LONG) return t.skip('downloads packages: in the long run only');
    if (!(await isThere(language.toolchain))) return t.skip(`there is no ${language.toolchain[0]}`);
    const stage = await CaptureStage.open(t);
    if (stage === undefined) return;
    const command = await language.build(SOURCES, await scratchFolder(t));
    const writer = await stage.writer({ rows: [100, 200], rate: 50, autocheckpoint: 200, seed: 3 });
    const replication = await stage.replicate();
    await replication.firstPut();
    const copy = join(stage.folder, 'copy.db');
    const replica = await openFileReplica(stage.replica);
    const follower = new FollowRun(t, { replica, output: copy });
    await follower.sees(({ type }) => type === 'following');
    const start = (pause: number) => CopyReader.run(t, [...command, copy, stage.ledgerPath, String(pause)]);
    const readers = await Promise.all([0, 0.1].map(start));
    await follower.sees(() => follower.events.filter(({ type }) => type === 'applied').length >= BATCHES);
    const { seq } = await writer.stop();
    await replication.stop();
    for (const reader of readers) {
      const { wrong, reads, states } = await reader.stop();
      assert.deepEqual(wrong, []);
      assert.ok(states > 1);
      t.diagnostic(`${reads} reads of ${states} states`);
    }
    await follower.reaches((await replica.list(0)).at(-1)!.maxTxid);
    await follower.stop();
    assert.equal((await proveState(copy)).seq, seq);
  });
}
