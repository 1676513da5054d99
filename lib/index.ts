/** The public API of Jetlite. Importing it starts nothing. */

export {
  ConflictError,
  type ErrorCode,
  FormatError,
  GivenUpError,
  JetliteError,
  LeaseLostError,
} from './errors.js';
export { type AwaitReplicaOptions, awaitReplica } from './jobs/await-replica.js';
export { type BackupOptions, type BackupProgress, type BackupResult, backup } from './jobs/backup.js';
export { type FollowEvent, type FollowOptions, type FollowResult, follow } from './jobs/follow.js';
export { planRestore, type RestorePlan, type RestoreWish } from './jobs/plan.js';
export type { OnProgress } from './jobs/rebuild/rebuild.js';
export {
  type ReplicateEvent,
  type ReplicateOptions,
  type ReplicateResult,
  replicate,
} from './jobs/replicate.js';
export { type ChildReplicateOptions, replicateInChild } from './jobs/replicate-child.js';
export { type Restored, type RestoreOptions, type RestoreResult, restore } from './jobs/restore.js';
export { type LevelStatus, type Status, type StatusOptions, status, watchStatus } from './jobs/status.js';
export type { UpkeepSettings } from './jobs/tidy/tidy.js';
export {
  DEFAULT_LEVELS,
  type LevelSettings,
  type TidyEvent,
  type TidyOptions,
  type TidyResult,
  tidy,
} from './jobs/tidy/tidy.js';
export { type Finding, type VerifyOptions, type VerifyResult, verify } from './jobs/verify.js';
export { decodeLtx, LtxDecoder, type LtxSummary, type LtxVisitor } from './ltx/decoder.js';
export { LtxEncoder } from './ltx/encoder.js';
export { formatTxid, type LtxHeader, parseTxid } from './ltx/header.js';
export type { NatsOptions } from './replica/nats/connect.js';
export { openReplica, parseReplicaUrl, type ReplicaAddress, type ReplicaOptions } from './replica/open.js';
export type { ByteSource, LtxFileInfo, LtxFileTarget, ReadRange, Replica } from './replica/replica.js';
export { type DatabaseHeader, decodeDatabaseHeader } from './sqlite/database.js';
export {
  decodeFrameHeader,
  decodeWalHeader,
  type FrameHeader,
  FrameScanner,
  WalChecksum,
  type WalHeader,
} from './sqlite/wal.js';
export { decodeWalIndex, type WalIndexHeader, type WalIndexResult } from './sqlite/wal-index.js';
