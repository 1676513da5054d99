/** What capture is told, and what it tells. */

export interface CaptureEvent {
  readonly type: 'image' | 'gap' | 'mode' | 'wait' | 'state' | 'damage';
  readonly level: 'debug' | 'info' | 'warn' | 'error';
  readonly message: string;
}

export interface CaptureOptions {
  readonly database: string;
  /** Folder for files that memory cannot hold; they have no name once they are open. */
  readonly scratchDir: string;
  /** A batch is full when it holds this many bytes of pages and a commit ends. */
  readonly batchBytes?: number;
  /** False: look at the files by the clock only. */
  readonly fileEvents?: boolean;
  readonly onEvent?: (event: CaptureEvent) => void;
  readonly onProgress?: (bytes: number, totalBytes: number) => void;
  readonly signal?: AbortSignal;
}
