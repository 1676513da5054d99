/**
 * An application under capture: a real SQLite in a process of its own that does one thing at a time, as the test says,
 * on any number of connections. Killing it leaves its files as they are.
 */
import { dirname, join } from 'node:path';
import { JsonLinesChild } from './json-lines.js';
import { peer } from './peers.js';
import { scratchFolder } from './scratch.js';

const PROGRAM = `
import json, os, sqlite3, sys, urllib.parse

connections = {}

def obey(wish):
    name = wish.get("on", "main")
    what = wish["do"]
    if what == "open":
        uri = "file:" + urllib.parse.quote(wish["path"]) + wish.get("query", "")
        connections[name] = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=wish.get("timeout", 0))
    elif what == "close":
        connections.pop(name).close()
    elif what == "run":
        rows = []
        for statement in wish["sql"]:
            if "incremental_vacuum" in statement:
                connections[name].executescript(statement)  # execute would step it once, for one page
            else:
                rows = connections[name].execute(statement).fetchall()
        return rows
    elif what == "become":
        os.setgroups([])
        os.setgid(wish["user"])
        os.setuid(wish["user"])
    elif what == "image":
        # What this connection sees, page for page: WAL, index and journal taken into account by SQLite itself.
        with open(wish["into"], "wb") as file:
            if connections[name].execute("PRAGMA page_count").fetchone()[0] > 0:
                file.write(connections[name].serialize())

for line in sys.stdin:
    try:
        print(json.dumps({"rows": obey(json.loads(line))}, default=repr), flush=True)
    except Exception as error:
        print(json.dumps({"error": str(error)}), flush=True)
`;

export interface OpenOptions {
  /** Which connection; one is "main". */
  on?: string;
  /** The rest of the URI: "?psow=0". */
  query?: string;
  /** Run right after opening. */
  pragmas?: readonly string[];
}

type Row = readonly (string | number | null)[];

interface Test {
  skip(message?: string): void;
  after(done: () => Promise<void>): void;
}

export class Application {
  readonly #child: JsonLinesChild;
  readonly path: string;
  /** Is told what was asked, and the error if there was one. */
  onAnswer: ((wish: Readonly<Record<string, unknown>>, error: string | undefined) => void) | undefined;

  private constructor(path: string, child: JsonLinesChild) {
    this.path = path;
    this.#child = child;
  }

  /**
   * Undefined where there is no Python: the test has been skipped then. The process ends with the test.
   * @param through a program that runs it, with its arguments: strace
   */
  static start(t: Test, path: string, through: readonly string[] = []): Application | undefined {
    const python = peer(t, 'python3');
    if (python === undefined) return undefined;
    const [program, ...args] = [...through, python, '-B', '-c', PROGRAM];
    const application = new Application(path, new JsonLinesChild(program!, args));
    t.after(() => application.kill());
    return application;
  }

  /** One with a database to be, `app.db` in a folder of its own. */
  static async inScratchFolder(t: Test): Promise<Application | undefined> {
    return Application.start(t, join(await scratchFolder(t), 'app.db'));
  }

  /** Another process beside this one, or after it. */
  another(t: Test): Application {
    return Application.start(t, this.path)!;
  }

  get folder(): string {
    return dirname(this.path);
  }

  get pid(): number {
    return this.#child.pid;
  }

  get ended(): Promise<number | NodeJS.Signals> {
    return this.#child.ended;
  }

  async open(options: OpenOptions = {}): Promise<void> {
    const { on, query, pragmas = [] } = options;
    await this.#ask({ do: 'open', path: this.path, on, query });
    await this.on(on ?? 'main', ...pragmas.map((pragma) => `PRAGMA ${pragma}`));
  }

  /** Runs statements on the connection "main"; the last one's rows. */
  run(...sql: string[]): Promise<Row[]> {
    return this.on('main', ...sql);
  }

  async on(connection: string, ...sql: string[]): Promise<Row[]> {
    return (await this.#ask({ do: 'run', on: connection, sql })) as Row[];
  }

  /** Writes what a connection sees of the database, page for page, into a file. */
  async image(into: string, connection = 'main'): Promise<void> {
    await this.#ask({ do: 'image', on: connection, into });
  }

  async close(connection = 'main'): Promise<void> {
    await this.#ask({ do: 'close', on: connection });
  }

  /** From now on another user, by number; only root can do that. */
  async become(user: number): Promise<void> {
    await this.#ask({ do: 'become', user });
  }

  /** Sends statements without waiting: for an application that is to die in the middle. */
  send(...sql: string[]): void {
    this.#ask({ do: 'run', on: 'main', sql }).catch(() => {});
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.signal(signal);
  }

  /** kill -9, and waits until it is gone. */
  kill(): Promise<void> {
    return this.#child.kill();
  }

  async #ask(wish: Record<string, unknown>): Promise<unknown> {
    const answer = await this.#child.ask(JSON.stringify(wish));
    this.onAnswer?.(wish, answer.error as string | undefined);
    if (answer.error !== undefined)
      throw new Error(`${answer.error} in ${JSON.stringify(wish).slice(0, 300)}`);
    return answer.rows;
  }
}
