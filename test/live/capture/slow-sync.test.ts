import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { CaptureStage } from '../../support/capture-stage.js';
import { peer } from '../../support/peers.js';
import { sqliteShell } from '../../support/sqlite.js';

test('a commit whose sync takes long is seen when it is published, which raises no event', async (t) => {
  const stage = await CaptureStage.open(t);
  const shell = sqliteShell(t);
  const strace = peer(t, 'strace');
  const sqlite = peer(t, 'sqlite3');
  if (stage === undefined || shell === undefined || strace === undefined || sqlite === undefined) return;
  await shell.run(stage.database, 'PRAGMA journal_mode = WAL; CREATE TABLE t(x);');
  // Stays open, so that the last thing that happens is the change of the index through its mapping.
  const slow = ['-f', '-qq', '-o', '/dev/null', '-e', 'inject=fsync,fdatasync:delay_enter=200000'];
  const writer = spawn(strace, [...slow, sqlite, '-batch', stage.database], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  t.after(() => {
    writer.stdin.end();
    return once(writer, 'close');
  });
  const say = async (sql: string): Promise<void> => {
    writer.stdin.write(`${sql}\nSELECT 'done';\n`);
    await once(writer.stdout, 'data');
  };
  await say('PRAGMA synchronous = FULL; INSERT INTO t VALUES (1);');
  // Nothing but events and what they lead to: with a poll in sight a missed commit would come a second late, unseen.
  const replication = await stage.replicate({ pollIntervalMs: 3_600_000 });
  await replication.ready();
  for (let i = 0; i < 3; i++) {
    const put = replication.nextPut();
    await say(`INSERT INTO t VALUES (${i});`);
    await put;
  }
  await replication.stop();
});
