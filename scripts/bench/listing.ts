/**
 * How long a new process takes to list a replica of many objects in a bucket, each round in a process of its own.
 *
 *     node dist/scripts/bench/listing.js [--objects 10000] [--rounds 5]
 */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { openReplica } from '../../lib/replica/open.js';
import { makeBucket } from '../../test/support/nats-replica.js';
import { startNatsServer } from '../../test/support/nats-server.js';
import { median, numberOption, printTable } from './figures.js';

const objects = numberOption('objects', 10_000);
const rounds = numberOption('rounds', 5);
const AT_ONCE = 16;

interface Figures {
  readonly openMs: number;
  readonly listMs: number;
  /** Processor time of this process while it listed. */
  readonly cpuMs: number;
  /** The second listing, which is kept live. */
  readonly againMs: number;
}

async function fill(url: string): Promise<void> {
  const replica = await openReplica(url, { env: {} });
  let next = 1n;
  const put = async (): Promise<void> => {
    while (next <= objects) {
      const txid = next++;
      const target = { level: 1, minTxid: txid, maxTxid: txid, timestampMs: Date.now() };
      await replica.write(target, () => [randomBytes(1500)]);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, put));
  await replica.close();
}

async function measure(url: string): Promise<Figures> {
  const started = performance.now();
  const replica = await openReplica(url, { env: {} });
  const opened = performance.now();
  const before = process.cpuUsage();
  const files = await replica.list();
  const { user, system } = process.cpuUsage(before);
  const listed = performance.now();
  if (files.length !== objects) throw new Error(`${files.length} of ${objects} objects were listed`);
  await replica.list();
  const againMs = performance.now() - listed;
  await replica.close();
  return { openMs: opened - started, listMs: listed - opened, cpuMs: (user + system) / 1000, againMs };
}

async function compare(): Promise<void> {
  const endings: (() => Promise<void>)[] = [];
  const server = await startNatsServer({
    after: (action) => endings.push(action),
    skip: (why) => process.stdout.write(`${why}\n`),
  });
  if (server === undefined) return;
  try {
    await makeBucket(server, 'bench');
    const url = `${server.url}/bench`;
    await fill(url);
    const figures: Figures[] = [];
    for (let round = 0; round < rounds; round++) {
      const args = [fileURLToPath(import.meta.url), '--url', url, '--objects', `${objects}`];
      const { stdout } = await promisify(execFile)(process.execPath, args);
      figures.push(JSON.parse(stdout));
    }
    const middle = (key: keyof Figures): string => median(figures.map((one) => one[key])).toFixed(0);
    const head = [`${objects} objects`, 'connect ms', 'list ms', 'cpu ms', 'again ms'];
    printTable(head, [['jetlite', middle('openMs'), middle('listMs'), middle('cpuMs'), middle('againMs')]]);
  } finally {
    for (const end of endings.reverse()) await end();
  }
}

const at = process.argv.indexOf('--url');
if (at === -1) await compare();
else process.stdout.write(JSON.stringify(await measure(process.argv[at + 1])));
