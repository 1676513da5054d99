import { JetliteError } from '../../lib/errors.js';
import { printable } from '../../lib/printable.js';
import type { BucketInfo, BucketSettings } from '../../lib/replica/nats/bucket.js';
import type { NatsOptions } from '../../lib/replica/nats/connect.js';
import type { Context } from '../command.js';
import { defineCommand, EXIT_DONE } from '../command.js';
import { formatBytes, formatMoment, formatTable } from '../format.js';
import { jsonOption, readDuration } from '../options.js';
import { parseSize, SIZE_EXAMPLES } from '../units.js';

const ACTIONS = ['create', 'info', 'list', 'delete'] as const;
const DEFAULT_SERVER = 'nats://127.0.0.1:4222';

interface BucketArgs {
  readonly action: (typeof ACTIONS)[number];
  readonly bucket: string | undefined;
  readonly server: string | undefined;
  readonly creds: string | undefined;
  readonly rootCas: string | undefined;
  readonly clientCert: string | undefined;
  readonly clientKey: string | undefined;
  readonly replicas: string | undefined;
  readonly storage: string | undefined;
  readonly maxBytes: string | undefined;
  readonly ttl: string | undefined;
  readonly compression: boolean;
  readonly description: string | undefined;
  readonly force: boolean;
  readonly json: boolean;
}

/** `jetlite bucket create|info|list|delete`: the bucket work that otherwise needs the nats tool. */
export const bucketCommand = defineCommand({
  command: 'bucket <action> [bucket]',
  describe: 'Create, show, list or delete object-store buckets',
  options: (yargs) =>
    jsonOption(yargs)
      .positional('action', { choices: ACTIONS, demandOption: true, describe: 'What to do' })
      .positional('bucket', { type: 'string', describe: 'Name of the bucket (not for list)' })
      .option('server', text(`URL of the NATS server [$NATS_URL, else ${DEFAULT_SERVER}]`))
      .option('creds', text('Credentials file [$NATS_CREDS]'))
      .option('root-cas', text('PEM files of authorities to trust, separated by commas [$NATS_CA]'))
      .option('client-cert', text('PEM file of the client certificate [$NATS_CERT]'))
      .option('client-key', text('PEM file of its key [$NATS_KEY]'))
      .option('replicas', text('create: servers of the cluster that hold it: 1, 3 or 5 [1]'))
      .option('storage', text('create: file or memory [file]'))
      .option('max-bytes', text('create: the most it may hold, such as 50GB [no limit]'))
      .option('ttl', text('create: objects expire after this time; not for replicas'))
      .option('compression', { type: 'boolean', default: false, describe: 'create: compress on disk' })
      .option('description', text('create: what it is for'))
      .option('force', { type: 'boolean', default: false, describe: 'delete: with all that is in it' }),
  run: async (args: BucketArgs, context) => {
    refuseStrayOptions(args);
    const settings = readSettings(args);
    if (args.action !== 'list') requireName(args);
    const { orAborted } = await import('../../lib/until-aborted.js');
    return orAborted(work(args, settings, context), context.signal, `bucket ${args.action}`);
  },
});

async function work(args: BucketArgs, settings: BucketSettings, context: Context): Promise<number> {
  const { connectNats } = await import('../../lib/replica/nats/connect.js');
  const { parseNatsServers } = await import('../../lib/replica/nats/address.js');
  const server = args.server ?? (process.env.NATS_URL ? undefined : DEFAULT_SERVER);
  const link = await connectNats(
    server === undefined ? undefined : parseNatsServers(server),
    readNatsOptions(args),
    process.env,
    (message) => context.log.write('warn', message),
  );
  try {
    const buckets = await import('../../lib/replica/nats/bucket.js');
    if (args.action === 'list') {
      showList(await buckets.listBuckets(link), args.json, context);
    } else if (args.action === 'info') {
      showOne(await buckets.bucketInfo(link, requireName(args)), args.json, context);
    } else if (args.action === 'create') {
      if (settings.ttlMs !== undefined) {
        context.log.write('warn', 'replicas cannot live in a bucket whose objects expire (--ttl)');
      }
      showOne(await buckets.createBucket(link, requireName(args), settings), args.json, context);
    } else {
      const found = await buckets.bucketInfo(link, requireName(args));
      requireForce(args, found);
      await buckets.deleteBucket(link, found.name);
      showDeleted(found, args.json, context);
    }
    return EXIT_DONE;
  } finally {
    await link.close();
  }
}

function text(describe: string) {
  return { type: 'string', requiresArg: true, describe } as const;
}

/** An option that the action does not know would be without effect, and its user would not know. */
function refuseStrayOptions(args: BucketArgs): void {
  const { action, bucket, replicas, storage, maxBytes, ttl, compression, description, force } = args;
  if (action === 'list' && bucket !== undefined) {
    throw new JetliteError('USAGE', 'bucket list shows all buckets, expected no name', {
      hint: `For one of them: jetlite bucket info ${bucket}`,
    });
  }
  const forCreate = { replicas, storage, 'max-bytes': maxBytes, ttl, compression, description };
  const [stray] = Object.entries(forCreate).find(([, value]) => value !== undefined && value !== false) ?? [];
  if (action !== 'create' && stray !== undefined)
    throw new JetliteError('USAGE', `--${stray} is for bucket create, not for bucket ${action}`);
  if (action !== 'delete' && force)
    throw new JetliteError('USAGE', `--force is for bucket delete, not for bucket ${action}`);
}

function requireName({ action, bucket }: BucketArgs): string {
  if (bucket?.includes('://')) {
    throw new JetliteError('USAGE', `bucket ${action} takes the name of a bucket, found an address`, {
      hint: `jetlite bucket ${action} NAME --server nats://HOST:PORT`,
    });
  }
  if (bucket !== undefined) return bucket;
  throw new JetliteError('USAGE', `bucket ${action}: which bucket?`, {
    hint: `jetlite bucket ${action} NAME`,
  });
}

function requireForce({ force }: BucketArgs, found: BucketInfo): void {
  if (force || found.messages === 0) return;
  const size = formatBytes(found.bytes);
  throw new JetliteError('USAGE', `bucket ${found.name} holds ${size}, and deleting it deletes them`, {
    hint: 'Say --force if you mean it.',
  });
}

function readNatsOptions(args: BucketArgs): NatsOptions {
  const { creds, rootCas, clientCert, clientKey } = args;
  return {
    ...(creds !== undefined && { creds }),
    ...(rootCas !== undefined && { rootCAs: rootCas.split(',') }),
    ...(clientCert !== undefined && { clientCert }),
    ...(clientKey !== undefined && { clientKey }),
  };
}

function readSettings(args: BucketArgs): BucketSettings {
  const { replicas, storage, maxBytes, description, compression } = args;
  if (replicas !== undefined && !/^[135]$/.test(replicas)) throw expected('replicas', '1, 3 or 5', replicas);
  if (storage !== undefined && storage !== 'file' && storage !== 'memory') {
    throw expected('storage', 'file or memory', storage);
  }
  const size = maxBytes === undefined ? undefined : parseSize(maxBytes);
  if (maxBytes !== undefined && !size) throw expected('max-bytes', SIZE_EXAMPLES, maxBytes);
  const ttlMs = readDuration('ttl', args.ttl);
  return {
    compression,
    ...(replicas !== undefined && { replicas: Number(replicas) }),
    ...(storage !== undefined && { storage }),
    ...(size !== undefined && { maxBytes: size }),
    ...(ttlMs !== undefined && { ttlMs }),
    ...(description !== undefined && { description }),
  };
}

function expected(option: string, what: string, found: string): JetliteError {
  return new JetliteError('USAGE', `--${option}: expected ${what}, found "${found}"`);
}

function showList(buckets: readonly BucketInfo[], json: boolean, { terminal }: Context): void {
  const rows = buckets.map(({ name, replicas, storage, bytes, description }) => {
    return [name, String(replicas), storage, formatBytes(bytes), printable(description)];
  });
  if (json) terminal.json(buckets.map(asJson));
  else terminal.result(formatTable(['bucket', 'replicas', 'storage', 'size', 'description'], rows));
}

function showOne(bucket: BucketInfo, json: boolean, { terminal }: Context): void {
  if (json) {
    terminal.json(asJson(bucket));
    return;
  }
  const { name, replicas, storage, maxBytes, ttlMs, compression, bytes, description } = bucket;
  const lines = [
    `bucket       ${name}`,
    `replicas     ${replicas}`,
    `storage      ${storage}${compression ? ', compressed' : ''}`,
    `size         ${formatBytes(bytes)}${maxBytes > 0 ? ` of ${formatBytes(maxBytes)}` : ''}`,
    `created      ${formatMoment(bucket.createdMs)}`,
  ];
  if (ttlMs > 0) lines.push(`ttl          ${ttlMs / 1000} s`);
  if (description !== '') lines.push(`description  ${printable(description)}`);
  for (const danger of bucket.dangers) lines.push(`unsafe       ${danger}`);
  terminal.result(lines.join('\n'));
}

function showDeleted(bucket: BucketInfo, json: boolean, { terminal }: Context): void {
  if (json) terminal.json({ bucket: bucket.name, deleted: true });
  else terminal.result(`bucket ${bucket.name} deleted`);
}

function asJson(bucket: BucketInfo): object {
  return {
    bucket: bucket.name,
    description: bucket.description,
    replicas: bucket.replicas,
    storage: bucket.storage,
    compression: bucket.compression,
    max_bytes: bucket.maxBytes,
    ttl_ms: bucket.ttlMs,
    bytes: bucket.bytes,
    created: formatMoment(bucket.createdMs),
    unsafe: bucket.dangers,
  };
}
