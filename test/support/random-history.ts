/** Random doings of applications on one database, captured meanwhile, and compared page for page again and again. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Application } from './application.js';
import { CapturedCopy } from './captured-copy.js';
import { Story } from './history-story.js';
import { type Random, randomSource } from './random.js';

const CONNECTION = ['wal_autocheckpoint=0', 'synchronous=off', 'cache_size=5'];

interface Scene {
  readonly random: Random;
  app: Application;
  /** Names of the connections that are open. */
  open: string[];
  /** The one that is open keeps all others out, and its index in its memory. */
  exclusive: boolean;
  readonly next: () => Application;
  readonly story: Story;
}

async function openConnection(scene: Scene, name: string): Promise<void> {
  const { random, app } = scene;
  // Some pad their commits to disk sectors.
  const padded = random.oneIn(3);
  scene.exclusive = scene.open.length === 0 && random.oneIn(4);
  const locking = scene.exclusive ? ['locking_mode=exclusive'] : [];
  // Some cut the WAL when it is begun anew.
  const limit = random.oneIn(4) ? [`journal_size_limit=${random.pick([0, 5000, 9000])}`] : [];
  await app.open({
    on: name,
    query: padded ? '?psow=0' : '',
    pragmas: [...locking, ...CONNECTION, ...limit],
  });
  if (padded) await app.on(name, 'PRAGMA synchronous = full');
  scene.open.push(name);
}

type Act = (scene: Scene, connection: string) => Promise<unknown>;

const commit: Act = ({ random, app }, connection) => {
  const id = 1 + random.below(40);
  const length = random.pick([10, 10, 400, 3000]);
  return app.on(
    connection,
    random.pick([
      `UPDATE t SET x = zeroblob(${length}) WHERE id = ${id}`,
      `INSERT INTO t(x) VALUES (randomblob(${length}))`,
      `DELETE FROM t WHERE id > ${id + 20}`,
      `UPDATE t SET n = n + 1 WHERE id = 1`,
    ]),
  );
};

const ACTS: readonly (readonly [weight: number, act: Act])[] = [
  [40, commit],
  [
    6,
    ({ app }, on) =>
      app.on(
        on,
        'BEGIN',
        'UPDATE t SET n = n + 1 WHERE id = 1',
        'UPDATE t SET n = n - 1 WHERE id = 1',
        'COMMIT',
      ),
  ],
  [4, ({ app }, on) => app.on(on, 'BEGIN', 'UPDATE t SET x = randomblob(900)', 'ROLLBACK')],
  [
    3,
    ({ app }, on) =>
      app.on(
        on,
        'BEGIN',
        'INSERT INTO t(x) VALUES (zeroblob(60000))',
        'DELETE FROM t WHERE length(x) = 60000',
        'COMMIT',
      ),
  ],
  [
    8,
    ({ app, random }, on) =>
      app.on(on, `PRAGMA wal_checkpoint(${random.pick(['PASSIVE', 'FULL', 'RESTART', 'TRUNCATE'])})`),
  ],
  [2, ({ app }, on) => app.on(on, 'PRAGMA incremental_vacuum(3)')],
  [1, ({ app }, on) => app.on(on, 'VACUUM')],
  [
    3,
    async (scene) =>
      scene.open.length < 3 && !scene.exclusive
        ? openConnection(scene, `c${scene.random.below(1e9)}`)
        : undefined,
  ],
  [
    3,
    async (scene, on) => {
      // A pause between the last write of the database and the end of its WAL, which a loaded machine makes anywhere.
      if (scene.exclusive) {
        await scene.app.on(on, 'PRAGMA wal_checkpoint(PASSIVE)');
        await sleep(8);
      }
      await scene.app.close(on);
      scene.open = scene.open.filter((name) => name !== on);
    },
  ],
  [
    2,
    async (scene) => {
      // Some of them in the middle of a transaction that has spilled.
      if (scene.random.oneIn(2))
        await scene.app.on(scene.open[0]!, 'BEGIN', 'UPDATE t SET x = randomblob(900)');
      await scene.app.kill();
      scene.story.tell('killed');
      scene.app = scene.next();
      scene.open = [];
    },
  ],
  [
    1,
    async (scene, on) => {
      const mode = scene.random.pick(['wal', 'wal', 'delete', 'truncate', 'persist']);
      await scene.app.on(on, `PRAGMA journal_mode = ${mode}`);
    },
  ],
];
const TOTAL = ACTS.reduce((sum, [weight]) => sum + weight, 0);

async function act(scene: Scene): Promise<void> {
  if (scene.open.length === 0) await openConnection(scene, 'main');
  let draw = scene.random.below(TOTAL);
  for (const [weight, one] of ACTS) {
    draw -= weight;
    if (draw >= 0) continue;
    // Connections get in each other's way: that is an error of theirs and no matter here.
    await one(scene, scene.random.pick(scene.open)).catch((error: Error) => {
      assert.match(error.message, /locked|busy/);
    });
    return;
  }
}

/** Lets capture take everything. False if it says that it cannot. */
async function isCaughtUp(scene: Scene, copy: CapturedCopy): Promise<boolean> {
  try {
    if (scene.exclusive) {
      // An index that was left behind is believed until it is found out, and not for a single commit beside it. These are
      // two: there always is a row 1.
      for (let n = 0; n < 2; n++) await scene.app.on(scene.open[0]!, 'UPDATE t SET n = n + 1 WHERE id = 1');
      await copy.catchUp();
      scene.story.looked(copy, 'current');
      await sleep(520);
    }
    await copy.catchUp();
    scene.story.looked(copy, 'current');
    return true;
  } catch (error) {
    scene.story.looked(copy, (error as Error).message);
    // Where the file was cut off behind a commit, that commit cannot be told from what a journal in memory would undo.
    assert.ok(scene.exclusive, error as Error);
    assert.match((error as Error).message, /a transaction without a journal is under way/);
    return false;
  }
}

/**
 * What is committed. A connection that leaves WAL mode may keep pages in its cache that another one has changed since
 * (SQLite 3.40.1), so a new one is asked where one can be.
 */
async function truthNow({ app, open, exclusive }: Scene, copy: CapturedCopy): Promise<Buffer> {
  if (exclusive) return copy.truthOf(app, open[0]!);
  await app.open({ on: 'truth' });
  const truth = await copy.truthOf(app, 'truth');
  await app.close('truth');
  return truth;
}

/** Goes on for so many seconds; JETLITE_SEED repeats what was done, if not when. */
export async function runRandomHistory(t: TestContext, fileEvents: boolean, seconds: number): Promise<void> {
  const first = await Application.inScratchFolder(t);
  if (!first) return;
  const random = randomSource(t);
  // One process stands ready to take over, since starting one takes longer than all that it does.
  let ready = first.another(t);
  const next = (): Application => {
    const taken = ready;
    ready = first.another(t);
    story.hear(taken);
    return taken;
  };
  const story = new Story();
  story.hear(first);
  const scene: Scene = { random, app: first, open: [], exclusive: false, next, story };
  await first.open({ pragmas: ['page_size=1024', 'auto_vacuum=2', 'journal_mode=wal', ...CONNECTION] });
  scene.open.push('main');
  await first.run(
    'CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER DEFAULT 0, x)',
    'INSERT INTO t(x) VALUES (1)',
  );
  const options = { fileEvents, batchBytes: random.pick([1, 3000, 16 << 20]) };
  let copy = CapturedCopy.of(t, first.path, options);
  const counts = { gaps: 0, proven: 0, restarts: 0, resumed: 0 };
  const deadline = performance.now() + seconds * 1000;
  const round = async (): Promise<void> => {
    for (let n = random.below(6); n > 0; n--) await act(scene);
    if (random.oneIn(4)) await sleep(random.below(30));
    if (random.oneIn(2)) {
      // One look, which may end anywhere.
      const outcome = await copy.capture.poll().catch((error) => {
        assert.equal(error.code, 'CAPTURE');
        return (error as Error).message;
      });
      story.looked(copy, outcome);
      if (random.oneIn(2)) copy.take();
    }
    if (random.oneIn(10)) {
      copy.take();
      counts.gaps += copy.gaps.length;
      counts.restarts += copy.capture.restarts;
      counts.resumed++;
      copy.close();
      copy = copy.restarted(t);
      story.tell('capture restarted');
    }
    if (random.oneIn(3)) {
      if (scene.open.length === 0) await openConnection(scene, 'main');
      if (await isCaughtUp(scene, copy)) {
        const truth = await truthNow(scene, copy);
        const differences = copy.differences(truth);
        if (differences.length > 0) story.differs(copy, truth);
        assert.deepEqual(differences, []);
        counts.proven++;
      }
    }
  };
  try {
    while (performance.now() < deadline) await round();
  } catch (error) {
    t.diagnostic(`${story}`);
    throw error;
  }
  t.diagnostic(
    `${counts.proven} states compared, ${counts.resumed} resumptions, ${counts.restarts + copy.capture.restarts} restarts ` +
      `crossed, ${counts.gaps + copy.gaps.length} gaps`,
  );
  assert.ok(counts.proven > 0);
}
