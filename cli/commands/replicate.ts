import { JetliteError } from '../../lib/errors.js';
import type { ReplicateEvent, ReplicateResult } from '../../lib/jobs/replicate.js';
import { formatTxid } from '../../lib/ltx/header.js';
import { parseReplicaUrl } from '../../lib/replica/open.js';
import type { Replica } from '../../lib/replica/replica.js';
import { type Context, defineCommand, EXIT_DONE, EXIT_FAILED } from '../command.js';
import type { DatabaseConfig } from '../config.js';
import { describeFailure } from '../failure.js';
import { formatBytes, formatMoment } from '../format.js';
import { type ListenAddress, parseListenAddress } from '../listen-address.js';
import type { Monitor } from '../monitor.js';
import { configOptions, type WriterArgs, writerOptions } from '../options.js';
import { type ConfigArgs, openSource, requireConfig, showAddress } from '../source.js';
import { startSubprogram } from '../subprogram.js';

interface ReplicateArgs extends ConfigArgs, WriterArgs {
  readonly db: string | undefined;
  readonly replica: string | undefined;
  readonly exec: string | undefined;
  readonly once: boolean;
  readonly forceSnapshot: boolean;
  readonly enforceRetention: boolean;
  readonly restoreIfDbNotExists: boolean;
  readonly addr: string | undefined;
}

/** The arguments, and who else wants to know what happens. */
interface RunArgs extends ReplicateArgs {
  readonly monitor: Monitor | undefined;
}

/** `jetlite replicate [DB REPLICA]`: keeps replicas up to date until it is stopped. */
export const replicateCommand = defineCommand({
  command: 'replicate [db] [replica]',
  describe: 'Keep replicas up to date until stopped',
  options: (yargs) =>
    writerOptions(configOptions(yargs))
      .positional('db', { type: 'string', describe: 'Path of the database [those of the configuration]' })
      .positional('replica', { type: 'string', describe: 'URL or folder' })
      .option('exec', {
        type: 'string',
        requiresArg: true,
        describe: 'Run a program beside; end when it ends',
      })
      .option('once', { type: 'boolean', default: false, describe: 'End when the replicas are up to date' })
      .option('force-snapshot', {
        type: 'boolean',
        default: false,
        describe: 'With --once: also make a snapshot of the newest state',
      })
      .option('enforce-retention', {
        type: 'boolean',
        default: false,
        describe: 'With --once: also remove the files that retention lets go',
      })
      .option('restore-if-db-not-exists', {
        type: 'boolean',
        default: false,
        describe: 'First restore a database that is missing and has a replica',
      })
      .option('addr', {
        type: 'string',
        requiresArg: true,
        describe: 'HOST:PORT for metrics (/metrics) and health (/healthz) [none]',
      }),
  run: async (given: ReplicateArgs, context) => {
    const { databases, exec, addr } = await readTasks(given, context);
    const monitor = addr && (await startMonitor(addr, databases));
    if (monitor) context.log.write('info', `metrics at ${monitor.url}/metrics`);
    const args = { ...given, monitor };
    if (args.once && exec !== undefined) {
      throw new JetliteError('USAGE', '--once and --exec cannot be given together', {
        hint: 'Leave one out.',
      });
    }
    if (!args.once && (args.forceSnapshot || args.enforceRetention)) {
      throw new JetliteError('USAGE', '--force-snapshot and --enforce-retention need --once', {
        hint: 'Without it snapshots are made and files removed when it is time.',
      });
    }
    if (exec === undefined) return replicateAll(databases, args, context, context.signal);
    // Before the program starts: it would make a database of its own.
    for (const task of databases) await restoreIfMissing(task, args, context);
    return replicateBeside(exec, databases, args, context);
  },
});

type Task = Omit<DatabaseConfig, 'restoreIfDbNotExists'> & { readonly restoreIfDbNotExists: boolean };

async function startMonitor(addr: ListenAddress, databases: readonly Task[]): Promise<Monitor> {
  // The Prometheus client takes a while to load: only those who want it wait for it.
  const { Monitor } = await import('../monitor.js');
  return Monitor.start(
    addr,
    databases.map(({ path }) => path),
  );
}

/** What is to be replicated, from the arguments or from the configuration, never from both. */
async function readTasks(
  args: ReplicateArgs,
  context: Context,
): Promise<{ databases: readonly Task[]; exec: string | undefined; addr: ListenAddress | undefined }> {
  const { db, replica } = args;
  const addr = args.addr === undefined ? undefined : parseListenAddress(args.addr);
  if (db === undefined) {
    const config = await requireConfig(args, context);
    if (config.databases.length === 0) {
      throw new JetliteError('USAGE', `${config.file} names no database to replicate`);
    }
    if (args.stateDir !== undefined && config.databases.length > 1) {
      throw new JetliteError('USAGE', '--state-dir is for one database, the configuration names several');
    }
    return { databases: config.databases, exec: args.exec ?? config.exec, addr: addr ?? config.addr };
  }
  if (replica === undefined) {
    throw new JetliteError('USAGE', `where should ${db} be replicated to?`, {
      hint: 'Name a replica behind it (nats://HOST/BUCKET or a folder), or no database to use the configuration.',
    });
  }
  if (args.config !== undefined) {
    throw new JetliteError('USAGE', 'expected a database with its replica or --config, found both');
  }
  const address = parseReplicaUrl(replica);
  const task = {
    path: db,
    replica: { address, nats: {}, syncIntervalMs: undefined },
    restoreIfDbNotExists: false,
    levels: {},
    spoolMaxBytes: undefined,
    auditIntervalMs: undefined,
    stopTimeoutMs: undefined,
  };
  return { databases: [task], exec: args.exec, addr };
}

async function restoreIfMissing(task: Task, args: RunArgs, context: Context): Promise<void> {
  if (!args.restoreIfDbNotExists && !task.restoreIfDbNotExists) return;
  const { lookAtOutput } = await import('../../lib/jobs/rebuild/output.js');
  if ((await lookAtOutput(task.path)).exists) return;
  const { restore } = await import('../../lib/jobs/restore.js');
  await withAwaited(task, args, context, context.signal, async (replica) => {
    const result = await restore({
      replica,
      output: task.path,
      ifDbNotExists: true,
      ifReplicaExists: true,
      signal: context.signal,
    });
    if (result.kind !== 'restored') return;
    const { txid, timestampMs } = result;
    for (const { message } of result.damaged) context.log.write('warn', message);
    context.log.write(
      'info',
      `restored ${task.path} to TXID ${formatTxid(txid)} of ${formatMoment(timestampMs)}`,
    );
  });
}

/** Works with the replica of a task as soon as it answers. Undefined if told to stop before it did. */
async function withAwaited<T>(
  task: Task,
  args: RunArgs,
  context: Context,
  signal: AbortSignal,
  work: (replica: Replica) => Promise<T>,
  onEvent: (event: ReplicateEvent) => void = logged(task, context),
): Promise<T | undefined> {
  const { awaitReplica } = await import('../../lib/jobs/await-replica.js');
  const { allowUnsafeBucket } = args;
  const open = () => openSource({ ...task.replica, allowUnsafeBucket }, { ...context, signal });
  const replica = await awaitReplica(open, { once: args.once, signal, onEvent });
  try {
    return replica && (await work(replica));
  } finally {
    await replica?.close();
  }
}

function logged(task: Task, { log }: Context): (event: ReplicateEvent) => void {
  return ({ level, message }) => log.write(level, message, { database: task.path });
}

/** One job a database. One that fails is reported and does not stop the others; a single one's failure is the command's. */
async function replicateAll(
  tasks: readonly Task[],
  args: RunArgs,
  context: Context,
  signal: AbortSignal,
  onStarted: (task: Task) => void = () => {},
): Promise<number> {
  if (tasks.length === 1) {
    await replicateOne(tasks[0], args, context, signal, onStarted);
    return EXIT_DONE;
  }
  let exitCode = EXIT_DONE;
  const jobs = tasks.map(async (task) => {
    try {
      await replicateOne(task, args, context, signal, onStarted);
    } catch (error) {
      exitCode = EXIT_FAILED;
      const { lines } = describeFailure(error, context.log.shows('debug'));
      context.log.write('error', lines.join(' '), { database: task.path });
    }
  });
  await Promise.all(jobs);
  return exitCode;
}

async function replicateOne(
  task: Task,
  args: RunArgs,
  context: Context,
  signal: AbortSignal,
  onStarted: (task: Task) => void,
): Promise<void> {
  const { spoolMaxBytes, auditIntervalMs, stopTimeoutMs } = task;
  const { syncIntervalMs } = task.replica;
  const { replicate } = await import('../../lib/jobs/replicate.js');
  const log = logged(task, context);
  const onEvent = (event: ReplicateEvent): void => {
    log(event);
    args.monitor?.take(task.path, event);
    if (event.type === 'ready' || event.type === 'missing' || event.type === 'retry') onStarted(task);
  };
  const work = (replica: Replica): Promise<ReplicateResult> =>
    replicate({
      database: task.path,
      replica,
      once: args.once,
      forceSnapshot: args.forceSnapshot,
      enforceRetention: args.enforceRetention,
      levels: task.levels,
      allowOtherDatabase: args.allowOtherDatabase,
      signal,
      ...(args.stateDir !== undefined && { stateDir: args.stateDir }),
      ...(syncIntervalMs !== undefined && { syncIntervalMs }),
      ...(spoolMaxBytes !== undefined && { spoolMaxBytes }),
      ...(auditIntervalMs !== undefined && { auditIntervalMs }),
      ...(stopTimeoutMs !== undefined && { stopTimeoutMs }),
      onEvent,
    });
  try {
    if (args.exec === undefined) await restoreIfMissing(task, args, context);
    const result = await withAwaited(task, args, context, signal, work, onEvent);
    context.log.write('info', summary(task, result), { database: task.path });
  } catch (error) {
    args.monitor?.fail(task.path);
    throw error;
  } finally {
    onStarted(task);
  }
}

function summary(task: Task, result: ReplicateResult | undefined): string {
  const where = showAddress(task.replica.address);
  if (result === undefined) return `stopped before ${where} answered`;
  const { txid, commits, files, bytes } = result;
  return txid === 0n
    ? `stopped; ${where} is empty`
    : `${where} is up to date at TXID ${formatTxid(txid)}: ${commits} commits in ${files} files, ${formatBytes(bytes)}`;
}

/** `started` resolves when each replication is under way, or waits for something that may never come, or has ended. */
function awaitStarts(tasks: readonly Task[]): { started: Promise<void>; onStarted: (task: Task) => void } {
  const waiting = new Set(tasks);
  let resolveStarted = (): void => {};
  const started = new Promise<void>((resolve) => {
    resolveStarted = resolve;
  });
  const onStarted = (task: Task): void => {
    waiting.delete(task);
    if (waiting.size === 0) resolveStarted();
  };
  return { started, onStarted };
}

/** The program's end ends the replication, after a last synchronisation; its exit code becomes ours. */
async function replicateBeside(
  exec: string,
  tasks: readonly Task[],
  args: RunArgs,
  context: Context,
): Promise<number> {
  const stop = new AbortController();
  const { started, onStarted } = awaitStarts(tasks);
  const program = startSubprogram(exec);
  const pass = (): void => program.kill('SIGTERM');
  context.signal.addEventListener('abort', pass);
  const ended = program.ended.then(async (exitCode) => {
    // A signal that comes while a replication begins stops it there; what a short-lived program wrote must be kept.
    if (!context.signal.aborted) await started;
    stop.abort();
    return exitCode;
  });
  const replicating = replicateAll(tasks, args, context, stop.signal, onStarted);
  try {
    const [exitCode, replicated] = await Promise.all([ended, replicating]);
    return exitCode === EXIT_DONE ? replicated : exitCode;
  } catch (error) {
    stop.abort();
    program.kill('SIGTERM');
    await Promise.allSettled([program.ended, replicating]);
    throw error;
  } finally {
    context.signal.removeEventListener('abort', pass);
  }
}
