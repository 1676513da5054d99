/**
 * How long a new process takes to list a replica of many level-0 files in a bucket, and a follower to bring its copy up to
 * date with it, each round in a process of its own.
 *
 *     node dist/scripts/bench/listing.js [--objects 10000] [--rounds 5]
 */
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { follow } from '../../lib/jobs/follow.js';
import { openReplica } from '../../lib/replica/open.js';
import type { Replica } from '../../lib/replica/replica.js';
import { Application } from '../../test/support/application.js';
import { type History, putLtx } from '../../test/support/ltx-history.js';
import { makeBucket } from '../../test/support/nats-replica.js';
import { startNatsServer } from '../../test/support/nats-server.js';
import { median, numberOption, printTable } from './figures.js';

const objects = numberOption('objects', 10_000);
const rounds = numberOption('rounds', 5);
const AT_ONCE = 16;
const PAGE_SIZE = 4096;
/** What the replica gets between two rounds. */
const NEWS = 5;

interface Figures {
  readonly openMs: number;
  readonly listMs: number;
  /** Processor time of this process while it listed. */
  readonly cpuMs: number;
  /** The second listing, which is kept live. */
  readonly againMs: number;
}

interface FollowFigures {
  /** From the follower's start until its copy stands at the replica's newest state; connecting not counted. */
  readonly followMs: number;
}

type Bench = Parameters<typeof Application.start>[0];

/** A real database of a few pages, the last of which changes with each TXID. */
async function makeHistory(bench: Bench, folder: string, length: number): Promise<History> {
  const path = join(folder, 'source.db');
  const application = Application.start(bench, path);
  if (application === undefined) throw new Error('there is no Python with SQLite');
  await application.open({ pragmas: [`page_size=${PAGE_SIZE}`, 'journal_mode=WAL'] });
  await application.run('CREATE TABLE t(x)');
  await application.close();
  const bytes = await readFile(path);
  const pages = Array.from({ length: bytes.length / PAGE_SIZE }, (_, i) =>
    bytes.subarray(i * PAGE_SIZE, (i + 1) * PAGE_SIZE),
  );
  const other = [...pages.slice(0, -1), Uint8Array.from(pages[pages.length - 1])];
  return { pageSize: PAGE_SIZE, states: Array.from({ length }, (_, i) => (i % 2 === 0 ? pages : other)) };
}

async function fill(replica: Replica, history: History, from: number, to: number): Promise<void> {
  let next = from;
  const put = async (): Promise<void> => {
    while (next <= to) {
      const txid = next++;
      await putLtx(replica, history, 0, txid, txid);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, put));
}

async function measure(url: string): Promise<Figures> {
  const started = performance.now();
  const replica = await openReplica(url, { env: {} });
  const opened = performance.now();
  const before = process.cpuUsage();
  const files = await replica.list();
  const { user, system } = process.cpuUsage(before);
  const listed = performance.now();
  if (files.length < objects) throw new Error(`${files.length} of ${objects} objects were listed`);
  await replica.list();
  const againMs = performance.now() - listed;
  await replica.close();
  return { openMs: opened - started, listMs: listed - opened, cpuMs: (user + system) / 1000, againMs };
}

async function measureFollow(url: string, output: string, txid: bigint): Promise<FollowFigures> {
  const replica = await openReplica(url, { env: {} });
  const stopping = new AbortController();
  const started = performance.now();
  let followMs = 0;
  await follow({
    replica,
    output,
    signal: stopping.signal,
    onEvent: (event) => {
      if (event.txid !== txid) return;
      followMs = performance.now() - started;
      stopping.abort();
    },
  });
  await replica.close();
  return { followMs };
}

async function compare(): Promise<void> {
  const endings: (() => Promise<void>)[] = [];
  const bench = {
    after: (action: () => Promise<void>) => void endings.push(action),
    skip: (why?: string) => void process.stdout.write(`${why}\n`),
  };
  try {
    const folder = await mkdtemp(join(tmpdir(), 'jetlite-bench-'));
    bench.after(() => rm(folder, { recursive: true, force: true }));
    const server = await startNatsServer(bench);
    if (server === undefined) return;
    await makeBucket(server, 'bench');
    const url = `${server.url}/bench`;
    const history = await makeHistory(bench, folder, objects + rounds * NEWS + 1);
    const replica = await openReplica(url, { env: {} });
    bench.after(() => replica.close());
    const copy = join(folder, 'copy.db');
    let newest = objects;
    await fill(replica, history, 1, newest);
    const { followMs: restoreMs } = await inProcess<FollowFigures>(url, copy, newest);
    const figures: (Figures & FollowFigures)[] = [];
    for (let round = 0; round < rounds; round++) {
      await fill(replica, history, newest + 1, newest + NEWS);
      newest += NEWS;
      const followed = await inProcess<FollowFigures>(url, copy, newest);
      figures.push({ ...(await inProcess<Figures>(url)), ...followed });
    }
    const middle = (key: keyof Figures | keyof FollowFigures): string =>
      median(figures.map((one) => one[key])).toFixed(0);
    const head = [
      `${objects} files`,
      'connect',
      'list',
      'its cpu',
      'again',
      'follower starts',
      'first restore',
    ];
    const row = ['ms', middle('openMs'), middle('listMs'), middle('cpuMs'), middle('againMs')];
    printTable(head, [[...row, middle('followMs'), restoreMs.toFixed(0)]]);
  } finally {
    for (const end of endings.reverse()) await end();
  }
}

async function inProcess<T>(...args: (string | number)[]): Promise<T> {
  const program = [fileURLToPath(import.meta.url), '--objects', `${objects}`, '--measure'];
  const { stdout } = await promisify(execFile)(process.execPath, [...program, ...args.map(String)]);
  return JSON.parse(stdout);
}

const at = process.argv.indexOf('--measure');
const [url, output, txid] = process.argv.slice(at + 1);
if (at === -1) await compare();
else
  process.stdout.write(
    JSON.stringify(
      output === undefined ? await measure(url) : await measureFollow(url, output, BigInt(txid)),
    ),
  );
