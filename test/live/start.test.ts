import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { peer } from '../support/peers.js';
import { scratchFolder } from '../support/scratch.js';
import { sqliteShell } from '../support/sqlite.js';

const run = promisify(execFile);
const START = fileURLToPath(new URL('../../../scripts/start.mjs', import.meta.url));

test('npm start proves the main job beside a writer', async (t) => {
  if (!peer(t, 'sqlite3')) return;
  const { stdout } = await run(process.execPath, [START]);
  assert.match(stdout, /^8\. .* all \d+ bytes are equal$/m);
});

test('npm start with arguments is jetlite, where the user stands, and stdout is only its own', async (t) => {
  const sqlite = sqliteShell(t);
  if (!sqlite) return;
  const folder = await scratchFolder(t);
  await sqlite.run(`${folder}/my.db`, 'CREATE TABLE t (x);');
  // As npm does: the script runs in the package's folder, and is told where npm was started.
  const options = { env: { ...process.env, INIT_CWD: folder } };
  const { stdout } = await run(process.execPath, [START, 'backup', 'my.db', '--json'], options);
  assert.equal(JSON.parse(stdout).kind, 'snapshot');
  const wrong = run(process.execPath, [START, 'backup', 'nothing.db', '--nonsense'], options);
  await assert.rejects(wrong, { code: 2, stdout: '' });
});
