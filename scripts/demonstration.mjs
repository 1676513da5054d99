/**
 * Jetlite's main job on real things, in a temporary folder: a sample database, a SQLite in a process of its own that
 * goes on changing it, `jetlite replicate` into a folder beside that, `jetlite restore`, and the proof that nothing
 * was lost. Only what has been proven is said; anything else is an error.
 */

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { isBuiltin } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { bringPeers, findPeer } from './peers.mjs';

const accounts = 20_000;
const startBalance = 1_000;
const writingMs = 3_000;

/** Resolves with the exit code: 0 if everything was proven. `program` is the path of the compiled `jetlite`. */
export async function demonstration(program) {
  const folder = mkdtempSync(join(tmpdir(), 'jetlite-start-'));
  const running = new Set();
  try {
    await show(folder, program, running);
    return 0;
  } finally {
    for (const child of running) child.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  }
}

async function show(folder, program, running) {
  const source = join(folder, 'bank.db');
  const replica = join(folder, 'replica');
  const jetlite = (...args) => start(running, process.execPath, [program, ...args]);

  const writer = openSqlite(running, source);
  await writer.run(...sampleBank());
  line(`1. made bank.db: ${accounts} accounts, ${megabytes(statSync(source).size)}, in WAL mode;`);
  line(`   it is written by ${writer.name}, in a process of its own`);

  const replicating = jetlite('replicate', source, replica);
  line('2. started: jetlite replicate bank.db replica');
  let commits = await transferFor(writer, writingMs);
  const rate = Math.round(commits / (writingMs / 1000));
  line(`3. meanwhile the writer committed ${commits} transfers of money, ${rate} a second`);

  const early = join(folder, 'early.db');
  const [more] = await Promise.all([
    transferFor(writer, writingMs / 3),
    done(jetlite('restore', replica, '-o', early)),
  ]);
  const then = await audit(running, early);
  line(`4. restored while it wrote on: transfer ${then}, no money lost or made, integrity_check ok`);

  commits += more;
  replicating.child.kill('SIGTERM');
  await done(replicating);
  line(`5. stopped jetlite after transfer ${commits}; the writer still has its database open`);

  await done(jetlite('verify', replica, '--against', source));
  line('6. jetlite verify replica --against bank.db: equal');

  const restored = join(folder, 'restored.db');
  await done(jetlite('restore', replica, '-o', restored));
  const transfers = await audit(running, restored);
  if (transfers !== commits) throw new Error(`restored ${transfers} transfers of ${commits}`);
  line(`7. jetlite restore replica -o restored.db: all ${transfers} transfers, integrity_check ok`);

  await writer.close();
  const [expected, found] = [readFileSync(source), readFileSync(restored)];
  if (!expected.equals(found)) throw new Error('bank.db and restored.db differ');
  line(`8. closed the writer and compared bank.db with restored.db: all ${expected.length} bytes are equal`);
}

function sampleBank() {
  const ids = `WITH RECURSIVE n (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n LIMIT ${accounts})`;
  return [
    'PRAGMA journal_mode = wal',
    'CREATE TABLE account (id INTEGER PRIMARY KEY, owner TEXT NOT NULL, balance INTEGER NOT NULL)',
    'CREATE TABLE transfer (id INTEGER PRIMARY KEY, source INTEGER, target INTEGER, amount INTEGER)',
    'CREATE INDEX account_owner ON account (owner)',
    `${ids} INSERT INTO account SELECT id, hex(randomblob(60)), ${startBalance} FROM n`,
  ];
}

/** Small transactions, one after the other, for that long; resolves with how many were committed. */
async function transferFor(writer, ms) {
  const until = Date.now() + ms;
  let commits = 0;
  while (Date.now() < until) {
    const [source, target, amount] = [anyOf(accounts), anyOf(accounts), anyOf(50)];
    await writer.run(
      'BEGIN IMMEDIATE',
      `UPDATE account SET balance = balance - ${amount} WHERE id = ${source}`,
      `UPDATE account SET balance = balance + ${amount} WHERE id = ${target}`,
      `INSERT INTO transfer (source, target, amount) VALUES (${source}, ${target}, ${amount})`,
      'COMMIT',
    );
    commits++;
  }
  return commits;
}

/** Asks SQLite whether a restored bank is sound; throws if it is not. Resolves with its number of transfers. */
async function audit(running, path) {
  const reader = openSqlite(running, path);
  const [integrity] = await reader.run('PRAGMA integrity_check');
  if (integrity !== 'ok') throw new Error(`integrity_check of a restored database: ${integrity}`);
  const [total] = await reader.run('SELECT sum(balance) FROM account');
  if (Number(total) !== accounts * startBalance) throw new Error(`the restored balances add up to ${total}`);
  const [transfers] = await reader.run('SELECT count(*) FROM transfer');
  await reader.close();
  return Number(transfers);
}

/** A SQLite that is not ours, in a process of its own: statements in, a line each; rows out. */
function openSqlite(running, path) {
  const { name, command, args } = sqliteProgram(path);
  const { child, ended } = start(running, command, args);
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const run = async (...statements) => {
    child.stdin.write(`${[...statements, "SELECT 'done'"].join(';\n')};\n`);
    const rows = [];
    for (;;) {
      const next = await lines.next();
      if (next.done) throw new Error(`${name} ended: ${(await ended).errors}`);
      if (next.value === 'done') return rows;
      rows.push(next.value);
    }
  };
  const close = async () => {
    child.stdin.end();
    await done({ child, ended });
  };
  return { name, run, close };
}

/** Any SQLite will do: the shell, Python's, Node's own, and if there is none, the shell is brought. */
function sqliteProgram(path) {
  const shell = findPeer('sqlite3');
  const python = shell ? undefined : findPeer('python3');
  if (python) {
    const script = `
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.stdin:
    for row in connection.execute(statement):
        print(*row, sep='|', flush=True)
connection.close()`;
    return { name: "Python's sqlite3 module", command: python, args: ['-c', script, path] };
  }
  if (!shell && isBuiltin('node:sqlite')) {
    const script = `
const { DatabaseSync } = require('node:sqlite');
const database = new DatabaseSync(process.argv[1]);
const lines = require('node:readline').createInterface({ input: process.stdin });
lines.on('line', (statement) => {
  for (const row of database.prepare(statement).all()) console.log(Object.values(row).join('|'));
});
lines.on('close', () => database.close());`;
    return { name: 'node:sqlite', command: process.execPath, args: ['--no-warnings', '-e', script, path] };
  }
  if (!shell) bringPeers(['sqlite3']);
  const command = shell ?? findPeer('sqlite3');
  if (!command)
    throw new Error('no SQLite at hand to write a database with: install sqlite3, or Python 3, or Node 24');
  return { name: 'the sqlite3 shell', command, args: ['-batch', '-bail', path] };
}

/** A child process with what it says; `ended` resolves with its exit code and both outputs. */
function start(running, command, args) {
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'] });
  running.add(child);
  child.stdin.on('error', () => {}); // It may end before it has read everything; `ended` tells.
  let errors = '';
  child.stderr.setEncoding('utf8').on('data', (text) => {
    errors += text;
  });
  child.stdout.resume();
  const ended = new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => {
      running.delete(child);
      resolve({ what: args.slice(1, 3).join(' '), code: code ?? signal, errors });
    });
  });
  return { child, ended };
}

async function done({ ended }) {
  const { what, code, errors } = await ended;
  if (code !== 0) throw new Error(`${what}: exit ${code}\n${errors.trim()}`);
}

function anyOf(count) {
  return 1 + Math.floor(Math.random() * count);
}

function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

function line(text) {
  process.stdout.write(`${text}\n`);
}
