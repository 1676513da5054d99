/** What `replicate` tells its caller while it runs. */

import type { CaptureEvent } from '../../capture/capture.js';
import type { LtxFileInfo } from '../../replica/replica.js';
import type { TidyEvent } from '../tidy/tidy.js';

export type ReplicateEvent =
  | CaptureEvent
  | TidyEvent
  | { readonly type: 'ready'; readonly level: 'info'; readonly message: string; readonly txid: bigint }
  | {
      readonly type: 'put';
      readonly level: 'debug';
      readonly message: string;
      readonly file: LtxFileInfo;
      readonly commits: number;
      readonly pages: number;
    }
  /** The replica is out of reach; nothing is lost, and it is tried again. */
  | { readonly type: 'retry' | 'missing'; readonly level: 'warn'; readonly message: string }
  /** The database can be read again after `missing`. */
  | { readonly type: 'found'; readonly level: 'info'; readonly message: string }
  /** Whether the replica is out of reach just now, as soon as it shows, also where nothing waits for it. */
  | { readonly type: 'away' | 'reached'; readonly level: 'debug'; readonly message: string }
  /** A file waits for the replica on disk now; or there is something to be said of those that do. */
  | { readonly type: 'spooled'; readonly level: 'debug'; readonly message: string; readonly txid: bigint }
  | { readonly type: 'spool'; readonly level: 'warn'; readonly message: string }
  /** The replica has lost files that it had acknowledged; they are called by their names in it. */
  | {
      readonly type: 'lost';
      readonly level: 'error';
      readonly message: string;
      readonly files: readonly string[];
    }
  /** What it lost was put again, or is not needed any more. */
  | { readonly type: 'healed'; readonly level: 'warn'; readonly message: string }
  /** It answers again. */
  | { readonly type: 'back'; readonly level: 'info'; readonly message: string }
  /** Moments do not lead to what is put now. */
  | { readonly type: 'clock'; readonly level: 'warn'; readonly message: string }
  /** What merging and removing files beside did otherwise. */
  | { readonly type: 'upkeep'; readonly level: 'debug'; readonly message: string };
