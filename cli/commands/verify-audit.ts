/** `jetlite verify --audit`: asks a replica's home, from metadata alone, whether it still has what it acknowledged. */

import { JetliteError } from '../../lib/errors.js';
import type { Judgement } from '../../lib/jobs/session/audit.js';
import { formatTxid } from '../../lib/ltx/header.js';
import { ltxPath } from '../../lib/replica/names.js';
import type { Replica } from '../../lib/replica/replica.js';
import type { Context } from '../command.js';
import { EXIT_DAMAGED, EXIT_DONE } from '../command.js';

interface Finding {
  readonly check: 'audit';
  readonly message: string;
  /** The file it is about, where it is about one. */
  readonly file?: string;
}

/** The state folder of `database`, or the one that is named, says what was acknowledged; else nobody does. */
export async function verifyByAudit(
  replica: Replica,
  database: string | undefined,
  { json, stateDir }: { readonly json: boolean; readonly stateDir: string | undefined },
  context: Context,
): Promise<number> {
  const { auditReplica } = await import('../../lib/jobs/session/audit.js');
  const judgement = await auditReplica(replica, [], await acknowledgedBy(database, stateDir, replica.url));
  if (judgement === undefined) {
    throw new JetliteError('USAGE', `${replica.url} cannot be asked what it has lost`, {
      hint: 'Leave --audit out: then everything is read.',
    });
  }
  const findings = findingsOf(judgement);
  if (json) context.terminal.json(asJson(judgement, findings, replica.url));
  else context.terminal.result(asText(judgement, findings, replica.url));
  return findings.length === 0 ? EXIT_DONE : EXIT_DAMAGED;
}

async function acknowledgedBy(
  database: string | undefined,
  stateDir: string | undefined,
  url: string,
): Promise<bigint> {
  if (database === undefined && stateDir === undefined) return 0n;
  const { readAcknowledged } = await import('../../lib/jobs/session/acknowledged.js');
  const { replicaStateFolder, stateFolder } = await import('../../lib/jobs/state-folder.js');
  return readAcknowledged(await replicaStateFolder(stateFolder(database ?? '', stateDir), url));
}

function findingsOf({ sound, lost, broken }: Judgement): Finding[] {
  const findings: Finding[] = lost.map(({ file, kind, message }) => ({
    check: 'audit',
    message: `${ltxPath(file)} is ${kind}: ${message}`,
    file: ltxPath(file),
  }));
  if (broken !== undefined) findings.push({ check: 'audit', message: broken });
  if (findings.length === 0 && sound.length === 0) {
    findings.push({ check: 'audit', message: 'the replica holds no LTX files' });
  }
  return findings;
}

function asText({ sound, newest }: Judgement, findings: readonly Finding[], url: string): string {
  const reach = newest === 0n ? 'no state' : `TXID ${formatTxid(newest)}`;
  const first = `${url}: ${sound.length} whole files, which lead to ${reach}`;
  if (findings.length === 0) return `${first}\nnothing is missing, as far as metadata tell`;
  return [first, 'NOT SOUND', ...findings.map(({ message }) => `  audit: ${message}`)].join('\n');
}

function asJson({ sound, newest }: Judgement, findings: readonly Finding[], url: string): object {
  return { replica: url, sound: findings.length === 0, findings, files: sound.length, txid: newest };
}
