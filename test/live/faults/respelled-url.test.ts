/** A replica's URL that is written otherwise between two runs, while files wait for its server on disk. */

import assert from 'node:assert/strict';
import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { stateFolder } from '../../../lib/jobs/state-folder.js';
import { status } from '../../../lib/jobs/status.js';
import { openReplica } from '../../../lib/replica/open.js';
import { assertMoments, commitIntoSpool, DURABLE, type Scene, scenario } from '../../support/away-scene.js';
import { makeBucket } from '../../support/nats-replica.js';
import { freePort, startNatsServer } from '../../support/nats-server.js';
import type { Replication } from '../../support/replication.js';

/** Commits that wait on disk, left by a run that was killed; the server is back. Their sequence numbers. */
async function leaveWaiting(scene: Scene, count: number, replica = scene.replica): Promise<number[]> {
  const killed = await scene.replicate({ replica });
  await killed.ready();
  await scene.server.kill();
  const seqs = await commitIntoSpool(scene, killed, count);
  await killed.kill();
  await scene.server.restart();
  return seqs;
}

/** The same behind one that was put and is kept beside them. */
async function leaveWaitingBehindOne(scene: Scene, count: number): Promise<number[]> {
  const killed = await scene.replicate();
  await killed.ready();
  const put = killed.nextPut();
  const { seq } = await scene.writer.command('step 1');
  await put;
  await scene.server.kill();
  const seqs = await commitIntoSpool(scene, killed, count);
  await killed.kill();
  await scene.server.restart();
  return [seq, ...seqs];
}

/** A bucket of the same name at a server that has nothing to do with the scene's. */
async function namesake(t: TestContext): Promise<string> {
  const server = (await startNatsServer(t, DURABLE))!;
  await makeBucket(server);
  return `${server.url}/backups`;
}

function stateOf({ stage }: Scene): string {
  return stateFolder(stage.database);
}

/** Replicates what there is to a replica. What was said of state folders meanwhile. */
async function run(scene: Scene, replica: string): Promise<string[]> {
  const replication = await scene.replicate({ replica });
  await replication.ready();
  await replication.stop();
  return saidOfFolders(replication);
}

function saidOfFolders({ events }: Replication): string[] {
  return events
    .filter(({ message }) => /is gone on with for|what waits in/.test(message))
    .map(({ level, message }) => `${level}: ${message}`);
}

scenario(
  'what waits is put, a state for each moment, however the URL of its servers is written',
  async (scene) => {
    const here = `127.0.0.1:${scene.server.port}`;
    const localhost = `localhost:${scene.server.port}`;
    const [second, third] = [`127.0.0.1:${await freePort()}`, `127.0.0.1:${await freePort()}`];
    const seqs = await leaveWaiting(scene, 3);
    for (const servers of [localhost, `${here},${second}`, `${second},${localhost}`]) {
      seqs.push(...(await leaveWaiting(scene, 3, `nats://${servers}/backups`)));
    }
    const replica = `nats://${third},${here}/backups`;
    const next = await scene.replicate({ replica });
    await next.ready();
    const { images } = await next.stop();
    assert.equal(images, 0, 'it went on where the one before stood');
    const [said] = saidOfFolders(next);
    assert.ok(
      said?.startsWith('info: ') && said.includes(`${second},${localhost}`) && said.includes(replica),
    );
    const [folder, ...more] = await readdir(stateOf(scene));
    assert.deepEqual(more, []);
    const record = await readFile(join(stateOf(scene), folder!, 'replica'), 'utf8');
    assert.deepEqual(JSON.parse(record), { replica });
    await assertMoments(scene, seqs);
  },
);

scenario(
  'a bucket of the same name in another cluster gets nothing of what waits, and a warning says what to do',
  async (scene, t) => {
    const other = await namesake(t);
    const seqs = await leaveWaitingBehindOne(scene, 5);
    const folder = join(stateOf(scene), (await readdir(stateOf(scene)))[0]!);
    for (let start = 1; start <= 2; start++) {
      const [said, ...more] = await run(scene, other);
      assert.deepEqual(more, []);
      assert.match(said!, /^warn: .*5 files.*no server in common.*run once with that URL, or remove/);
      for (const part of [folder, scene.replica, other]) assert.ok(said?.includes(part), said);
    }
    assert.deepEqual(await run(scene, scene.replica), []);
    assert.deepEqual(await run(scene, other), [], 'nothing waits any more');
    await assertMoments(scene, seqs);
  },
);

scenario('what another process is at work with is nobody else’s business', async (scene, t) => {
  const other = await namesake(t);
  const running = await scene.replicate();
  await running.ready();
  await scene.server.kill();
  const seqs = await commitIntoSpool(scene, running, 2);
  assert.deepEqual(await run(scene, other), []);
  await scene.server.restart();
  await running.stop();
  await assertMoments(scene, seqs);
});

scenario(
  'what an earlier version left is put under its own URL, and told of under every other',
  async (scene) => {
    const seqs = await leaveWaiting(scene, 2);
    const folder = join(stateOf(scene), (await readdir(stateOf(scene)))[0]!);
    await rm(join(folder, 'replica'));
    const [said, ...more] = await run(scene, `${scene.replica}/prefix`);
    assert.deepEqual(more, []);
    assert.match(said!, /^warn: .*2 files.*earlier version.*run once with the URL/);
    assert.ok(said?.includes(folder));
    assert.deepEqual(await run(scene, scene.replica), []);
    await assertMoments(scene, seqs);
    assert.deepEqual(await run(scene, `${scene.replica}/prefix`), []);
  },
);

scenario('status finds what is kept under another spelling and changes nothing', async (scene) => {
  await leaveWaiting(scene, 2);
  const inside = () => readdir(stateOf(scene), { recursive: true });
  const before = await inside();
  const { database } = scene.stage;
  const local = async (url: string): Promise<bigint | undefined> => {
    const replica = await openReplica(url);
    try {
      return (await status({ replica, database })).database?.txid;
    } finally {
      await replica.close();
    }
  };
  const respelled = scene.replica.replace('127.0.0.1', 'localhost');
  const txid = await local(scene.replica);
  assert.notEqual(txid, undefined);
  assert.equal(await local(respelled), txid);
  assert.equal(await local(`${scene.replica}/prefix`), undefined);
  assert.deepEqual(await inside(), before);
});

scenario(
  'of two processes that would go on with the same files under other URLs one does, the other is refused',
  async (scene) => {
    const seqs = await leaveWaiting(scene, 4);
    const more = [`127.0.0.1:${await freePort()}`, `127.0.0.1:${await freePort()}`];
    const both = await Promise.all(
      more.map((server) =>
        scene.replicate({ replica: scene.replica.replace('/backups', `,${server}/backups`) }),
      ),
    );
    const outcomes = await Promise.allSettled(both.map((replication) => replication.ready()));
    const ready = outcomes.findIndex(({ status }) => status === 'fulfilled');
    assert.deepEqual(outcomes.map(({ status }) => status).sort(), ['fulfilled', 'rejected']);
    await assert.rejects(both[1 - ready]!.result(), /CONFLICT.*another process on this machine/);
    await both[ready]!.stop();
    assert.equal((await readdir(stateOf(scene))).length, 1);
    await assertMoments(scene, seqs);
  },
);

scenario(
  'killed as soon as it has taken over what waits, a process leaves it to either URL',
  async (scene) => {
    const seqs: number[] = [];
    const respelled = scene.replica.replace('127.0.0.1', 'localhost');
    for (const [first, then] of [
      [respelled, scene.replica],
      [respelled, respelled],
    ] as const) {
      seqs.push(...(await leaveWaiting(scene, 3)));
      const killed = await scene.replicate({ replica: first });
      await killed.waitFor(({ message }) => message.includes('is gone on with for'));
      await killed.kill();
      await run(scene, then);
    }
    assert.equal((await readdir(stateOf(scene))).length, 1);
    await assertMoments(scene, seqs);
  },
);
