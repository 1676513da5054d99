/** Files that come and go under capture: links, and names that stand for another file than at the last look. */
import assert from 'node:assert/strict';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Application } from '../../support/application.js';
import { CapturedCopy } from '../../support/captured-copy.js';

const WAL = ['journal_mode=wal', 'wal_autocheckpoint=0', 'synchronous=off'];
const insert = (text: string) => `INSERT INTO t VALUES ('${text}')`;
const settle = () => sleep(60);

async function application(
  t: TestContext,
  pragmas: readonly string[] = WAL,
): Promise<Application | undefined> {
  const app = await Application.inScratchFolder(t);
  if (!app) return undefined;
  await app.open({ pragmas });
  await app.run('CREATE TABLE t(x)', insert('one'), 'PRAGMA wal_checkpoint(PASSIVE)');
  return app;
}

describe('files that come and go', { concurrency: 4 }, () => {
  test('a database is followed through a symbolic link: its WAL is beside what the link names', async (t) => {
    const app = await application(t);
    if (!app) return;
    const folder = join(app.folder, 'links');
    mkdirSync(folder);
    const link = join(folder, 'linked.db');
    symlinkSync(join('..', 'app.db'), link);
    assert.ok(!existsSync(`${link}-wal`), 'the naive rule: no WAL, so the file is all there is');
    for (const fileEvents of [true, false]) {
      const copy = CapturedCopy.of(t, link, { fileEvents });
      await copy.catchUp();
      await copy.assertEquals(app);
      await app.run(insert('two'));
      await copy.catchUp();
      await copy.assertEquals(app);
    }
  });

  for (const fileEvents of [true, false]) {
    const how = fileEvents ? 'with file events' : 'by the clock';

    // Each of these happens as a whole between two looks.
    const BETWEEN: Record<
      string,
      (app: Application, others: () => Application) => Promise<Application | undefined>
    > = {
      'closed, opened, written and closed again': async (app) => {
        await app.close();
        await app.open({ pragmas: WAL });
        await app.run(insert('between'));
        await app.close();
        await settle();
        return undefined;
      },
      'written, closed, and left for long': async (app) => {
        await app.run(insert('between'));
        await app.close();
        await settle();
        return undefined;
      },
      'closed, and then opened and written': async (app) => {
        await app.close();
        await app.open({ pragmas: WAL });
        await app.run(insert('between'));
        return app;
      },
      'closed, written in rollback mode, and back in WAL mode': async (app) => {
        await app.run(
          'PRAGMA journal_mode=delete',
          insert('between'),
          'PRAGMA journal_mode=wal',
          insert('after'),
        );
        return app;
      },
      'closed, written in rollback mode, and left': async (app) => {
        await app.run('PRAGMA journal_mode=delete', insert('between'));
        await settle();
        return app;
      },
      'killed, its WAL removed by hand, and opened again': async (app, others) => {
        await app.run(insert('between'));
        await app.kill();
        unlinkSync(`${app.path}-wal`);
        const next = others();
        await next.open({ pragmas: WAL });
        await next.run(insert('after'));
        return next;
      },
      'killed, its index removed by hand, and opened again': async (app, others) => {
        await app.run(insert('between'));
        await app.kill();
        unlinkSync(`${app.path}-shm`);
        const next = others();
        await next.open({ pragmas: WAL });
        await next.run('PRAGMA wal_checkpoint(PASSIVE)', insert('after'));
        return next;
      },
      'killed, both removed by hand, and opened again': async (app, others) => {
        await app.run(insert('between'));
        await app.kill();
        unlinkSync(`${app.path}-shm`);
        unlinkSync(`${app.path}-wal`);
        const next = others();
        await next.open({ pragmas: WAL });
        await next.run(insert('after'));
        return next;
      },
      'replaced by another database under the same name': async (app, others) => {
        await app.close();
        const other = others();
        await other.open({ pragmas: WAL });
        await other.run('DELETE FROM t', insert('the other'));
        await other.close();
        copyFileSync(app.path, `${app.path}.new`);
        renameSync(`${app.path}.new`, app.path);
        await other.open({ pragmas: WAL });
        await other.run(insert('after'));
        return other;
      },
      'removed and created anew': async (app, others) => {
        await app.close();
        rmSync(app.path);
        const other = others();
        await other.open({ pragmas: WAL });
        await other.run(
          'CREATE TABLE t(y, x DEFAULT 7)',
          'CREATE TABLE other(x)',
          'DROP TABLE t',
          'CREATE TABLE t(x)',
        );
        return other;
      },
    };
    for (const [what, between] of Object.entries(BETWEEN)) {
      test(`${what}, ${how}`, async (t) => {
        const app = await application(t);
        if (!app) return;
        const copy = CapturedCopy.of(t, app.path, { fileEvents });
        await copy.catchUp();
        await app.run(insert('two'));
        await copy.catchUp();
        await settle();
        let open = await between(app, () => app.another(t));
        await copy.catchUp();
        if (open === undefined) {
          copy.assertIs(readFileSync(app.path));
          open = app.another(t);
          await open.open({ pragmas: WAL });
        }
        await copy.assertEquals(open);
        await open.run(insert('at last'));
        await copy.catchUp();
        await copy.assertEquals(open);
      });
    }
  }

  for (const [fileEvents, index] of [
    [true, 'and its index'],
    [false, 'and its index'],
    [true, 'without an index'],
    [false, 'without an index'],
  ] as const) {
    const how = fileEvents ? 'with file events' : 'by the clock';
    test(`what was lost with a WAL ${index}, removed by hand, is not kept, ${how}`, async (t) => {
      const app = await Application.inScratchFolder(t);
      if (!app) return;
      await app.open({ pragmas: index === 'and its index' ? WAL : ['locking_mode=exclusive', ...WAL] });
      await app.run('CREATE TABLE t(x)', 'CREATE TABLE u(x)', 'PRAGMA wal_checkpoint(PASSIVE)');
      await settle();
      const copy = CapturedCopy.of(t, app.path, { fileEvents });
      await copy.catchUp();
      await app.run(insert('lost'));
      await copy.catchUp();
      await copy.assertEquals(app);
      await app.kill();
      unlinkSync(`${app.path}-wal`);
      if (index === 'and its index') unlinkSync(`${app.path}-shm`);
      const next = app.another(t);
      await next.open({ pragmas: WAL });
      await next.run(`INSERT INTO u VALUES ('kept')`);
      await copy.catchUp();
      await copy.assertEquals(next);
    });
  }

  test('a WAL that is removed by hand under an application that lives on', async (t) => {
    const app = await application(t);
    if (!app) return;
    const copy = CapturedCopy.of(t, app.path);
    await copy.catchUp();
    unlinkSync(`${app.path}-wal`);
    // It goes on in a file without a name; sooner or later a checkpoint brings that into the database.
    await app.run(insert('two'));
    await copy.catchUp();
    await app.run(insert('three'), 'PRAGMA wal_checkpoint(TRUNCATE)');
    await settle();
    await copy.catchUp();
    copy.assertIs(readFileSync(app.path));
    await copy.assertEquals(app);
  });

  test('a database whose pages have another size from one look to the next is refused by name', async (t) => {
    const app = await application(t, ['page_size=1024', 'journal_mode=delete', 'synchronous=off']);
    if (!app) return;
    await settle();
    const copy = CapturedCopy.of(t, app.path);
    await copy.catchUp();
    await app.run('PRAGMA page_size=2048', 'VACUUM');
    await settle();
    const message = /app\.db: the page size changed from 1024 to 2048 bytes/;
    await assert.rejects(copy.catchUp(), { code: 'DATABASE', message });
  });

  test('a folder that is removed and made anew is watched anew', async (t) => {
    const app = await Application.inScratchFolder(t);
    if (!app) return;
    const folder = join(app.folder, 'data');
    const path = join(folder, 'app.db');
    const make = async (): Promise<Application> => {
      mkdirSync(folder);
      const made = Application.start(t, path)!;
      await made.open({ pragmas: WAL });
      await made.run('CREATE TABLE t(x)', insert('one'));
      return made;
    };
    const old = await make();
    const copy = CapturedCopy.of(t, path);
    await copy.catchUp();
    await old.kill();
    rmSync(folder, { recursive: true });
    const app2 = await make();
    await copy.catchUp();
    await copy.assertEquals(app2);
    // It is woken by what happens there, long before the clock would.
    await copy.capture.wait(100);
    const woken = copy.capture.wait(60_000).then(() => true);
    await app2.run(insert('two'));
    assert.ok(await Promise.race([woken, sleep(5000, false)]));
    await copy.catchUp();
    await copy.assertEquals(app2);
  });

  test('a link that names another database from one look to the next', async (t) => {
    const [first, second] = [await application(t), await application(t)];
    if (!first || !second) return;
    await second.run(insert('the other one'));
    const link = join(first.folder, 'current.db');
    symlinkSync(first.path, link);
    const copy = CapturedCopy.of(t, link);
    await copy.catchUp();
    await copy.assertEquals(first);
    rmSync(link);
    symlinkSync(second.path, link);
    await copy.catchUp();
    await copy.assertEquals(second);
  });
});
