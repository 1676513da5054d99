/**
 * What applications write to a database, its WAL and its index comes in steps, and any number of them may lie between two
 * reads of capture. A real SQLite can be stopped at few of them. Here its protocol is played step by step, at random,
 * between capture's reads, and whatever capture hands on must be a state that was committed.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { CapturedCopy } from '../../support/captured-copy.js';
import { type Random, randomSource, seededRandom } from '../../support/random.js';
import { digestOf, StagedSource } from '../../support/staged-source.js';
import { takeOver, world } from '../../support/staged-world.js';

takeOver();

const HISTORIES = process.env.JETLITE_LONG === '1' ? 300 : 50;
const ROUNDS = 120;

interface Outcome {
  handedOn: number;
  gaps: number;
  restarts: number;
}

class Stage {
  readonly #random: Random;
  readonly #source: StagedSource;
  readonly #outcome: Outcome;
  readonly #areLocksSeen: boolean;
  readonly #isMortal: boolean;
  readonly #ends: (() => void)[] = [];
  #steps: Generator | undefined;
  #copy: CapturedCopy;

  constructor(folder: string, random: Random, mayBeExclusive: boolean, outcome: Outcome) {
    world.begin();
    this.#random = random;
    this.#outcome = outcome;
    this.#isMortal = random.oneIn(3);
    this.#source = new StagedSource(join(folder, 'app.db'), random, mayBeExclusive);
    this.#areLocksSeen = random.oneIn(2);
    world.pause = () => {
      while (this.#source.isInPage) this.#steps!.next();
    };
    world.locks = () => (this.#areLocksSeen ? this.#source.locks : '');
    this.#steps = this.#source.next();
    this.#finish();
    const options = { fileEvents: random.oneIn(2), batchBytes: random.pick([1, 600, 1 << 20]) };
    this.#copy = CapturedCopy.of({ after: (end) => this.#ends.push(end) }, this.#source.path, options);
  }

  async play(): Promise<void> {
    const random = this.#random;
    if (random.oneIn(2) && (await this.#during(2, () => this.#copy.stream()))) this.#assertCommitted();
    for (let round = 0; round < ROUNDS; round++) {
      for (let n = random.below(12); n > 0; n--) this.#step();
      if (random.oneIn(4)) world.pass(random.pick([5, 10, 25, 45, 520]));
      await this.#during(random.pick([0, 0, 2, 6, 20]), () => this.#copy.capture.poll());
      if (random.oneIn(2)) this.#take();
      if (random.oneIn(6)) await this.#rest();
      if (random.oneIn(25)) this.#resume();
    }
    this.#count();
  }

  end(): void {
    world.between = undefined;
    world.pause = undefined;
    for (const end of this.#ends) end();
    this.#source.dispose();
  }

  /** One step of whoever is at work, now and then the last of them all. */
  #step(): void {
    world.pass(this.#random.pick([0, 0.05, 0.2, 1, 3]));
    if (
      this.#steps === undefined ||
      (this.#isMortal && this.#source.alive > 0 && !this.#source.isInPage && this.#random.oneIn(60))
    ) {
      this.#steps = this.#steps === undefined ? this.#source.next() : undefined;
      if (this.#steps === undefined) this.#source.kill();
    } else if (this.#steps.next().done) this.#steps = undefined;
  }

  #finish(): void {
    while (this.#steps !== undefined) if (this.#steps.next().done) this.#steps = undefined;
  }

  /** Captures while others go on, a step in so many reads; 0: none. Undefined if no image could be had. */
  async #during<T>(reads: number, capture: () => Promise<T>): Promise<T | undefined> {
    world.between = () => {
      if (reads > 0 && this.#random.oneIn(reads)) this.#step();
    };
    try {
      return await capture();
    } catch (error) {
      assert.equal((error as { code?: string }).code, 'CAPTURE', this.#told(error as Error));
      return undefined;
    } finally {
      world.between = undefined;
    }
  }

  #take(): void {
    if (this.#copy.take() !== undefined) this.#assertCommitted();
  }

  #assertCommitted(): void {
    this.#outcome.handedOn++;
    const digest = digestOf(this.#copy.content);
    const { alive, isExclusive, isTorn, committed } = this.#source;
    // A commit that nobody can take back any more is one.
    const isBound = alive === 0 || isExclusive || isTorn;
    const isRight = committed.has(digest) || (isBound && digest === digestOf(this.#source.recoverable));
    assert.ok(isRight, this.#told(new Error('what was handed on was never committed')));
  }

  /** When everything has come to rest capture stands at the last commit. */
  async #rest(): Promise<void> {
    this.#finish();
    world.pass(630);
    const isIndexUnsure = this.#source.alive === 0 || (this.#source.isExclusive && !this.#areLocksSeen);
    for (let looks = 0; ; looks++) {
      const state = await this.#during(0, () => this.#copy.capture.poll());
      this.#take();
      if (state === 'current' && !this.#copy.capture.hasPending) break;
      // Where the database has what the index does not show, only the next commit tells what is to be made of it.
      if (state === undefined && isIndexUnsure) return;
      assert.ok(looks < 200, this.#told(new Error(`still '${state}'`)));
      await sleep(300);
    }
    // An index that was left behind by a killed application is found out later.
    if (isIndexUnsure) return;
    const isThere = digestOf(this.#copy.content) === digestOf(this.#source.now);
    assert.ok(isThere, this.#told(new Error('capture is current, but not at the last commit')));
  }

  #resume(): void {
    this.#take();
    this.#count();
    const next = this.#copy.restarted({ after: (end) => this.#ends.push(end) });
    this.#copy.close();
    this.#copy = next;
  }

  #count(): void {
    this.#outcome.gaps += this.#copy.gaps.length;
    this.#outcome.restarts += this.#copy.capture.restarts;
  }

  #told(error: Error): string {
    const seen = this.#areLocksSeen ? 'locks are seen' : 'no locks are seen';
    const told = this.#copy.events.slice(-20).map(({ type, message }) => `${type}: ${message}`);
    return [error.stack, seen, ...this.#source.story, ...told].join('\n');
  }
}

for (const mayBeExclusive of [false, true]) {
  const who = mayBeExclusive ? 'some of them in exclusive locking mode' : 'sharing the index';
  test(`nothing but commits is handed on, whatever lies between two reads: connections ${who}`, async (t) => {
    // The same ones in each run, unless it is to find new ones.
    const isLong = process.env.JETLITE_LONG === '1' || process.env.JETLITE_SEED !== undefined;
    const random = isLong ? randomSource(t) : seededRandom(77);
    const outcome = { handedOn: 0, gaps: 0, restarts: 0 };
    for (let n = 0; n < HISTORIES; n++) {
      const folder = mkdtempSync(join(tmpdir(), 'jetlite-test-'));
      const stage = new Stage(folder, random, mayBeExclusive, outcome);
      try {
        await stage.play();
      } finally {
        stage.end();
        rmSync(folder, { recursive: true });
      }
    }
    t.diagnostic(
      `${outcome.handedOn} states handed on, ${outcome.restarts} restarts crossed, ${outcome.gaps} gaps`,
    );
    assert.ok(outcome.restarts > HISTORIES && outcome.gaps < outcome.handedOn / 2);
  });
}
