/**
 * The two streams a command speaks through: results to stdout, everything else to stderr. A progress bar is drawn
 * on stderr only where a person looks at it, and lines written meanwhile go above it.
 */

import { formatBytes, formatClock, showTxid } from './format.js';

export interface Progress {
  update(phase: string, bytes: number, totalBytes: number): void;
  /** Takes the bar off the screen. */
  end(): void;
}

export interface Terminal {
  /** Whether stderr is a terminal and bars are wanted. */
  readonly interactive: boolean;
  /** One line (or several) of the result, to stdout. */
  result(text: string): void;
  /** One JSON document, to stdout. */
  json(value: unknown): void;
  /** One line to stderr, above the bar if one is drawn. */
  line(text: string): void;
  progress(): Progress;
}

const REDRAW_MS = 100;
const BAR_WIDTH = 24;

export interface TerminalStreams {
  readonly stdout: NodeJS.WritableStream;
  readonly stderr: NodeJS.WritableStream & { readonly isTTY?: boolean; readonly columns?: number };
}

/** `quiet`: no bars and no results, except those asked for as JSON. */
export function createTerminal(streams: TerminalStreams, wantsBars: boolean, quiet = false): Terminal {
  const { stdout, stderr } = streams;
  const interactive = wantsBars && !quiet && stderr.isTTY === true;
  let bar = '';

  const redraw = (text: string): void => {
    stderr.write(`\r\x1b[K${text}`);
    bar = text;
  };

  return {
    interactive,
    result(text) {
      if (!quiet) stdout.write(`${text}\n`);
    },
    json: (value) => void stdout.write(`${JSON.stringify(value, showTxid, 2)}\n`),
    line(text) {
      if (bar === '') stderr.write(`${text}\n`);
      else {
        stderr.write(`\r\x1b[K${text}\n`);
        redraw(bar);
      }
    },
    progress() {
      const startMs = performance.now();
      let drawnMs = 0;
      return {
        update(phase, bytes, totalBytes) {
          const nowMs = performance.now();
          if (!interactive || nowMs - drawnMs < REDRAW_MS) return;
          drawnMs = nowMs;
          redraw(
            progressText(phase, bytes, totalBytes, nowMs - startMs).slice(0, (stderr.columns ?? 80) - 1),
          );
        },
        end() {
          if (bar !== '') redraw('');
        },
      };
    },
  };
}

/** "restore [######------] 48 %  1.2 GB of 2.5 GB  310 MB/s  0:04 left"; the total may be unknown (0). */
export function progressText(phase: string, bytes: number, totalBytes: number, elapsedMs: number): string {
  const rate = elapsedMs > 0 ? (bytes / elapsedMs) * 1000 : 0;
  const speed = `${formatBytes(rate)}/s`;
  if (totalBytes <= 0) return `${phase} ${formatBytes(bytes)}  ${speed}`;
  const share = Math.min(1, bytes / totalBytes);
  const full = Math.round(share * BAR_WIDTH);
  const left = rate > 0 ? `  ${formatClock((totalBytes - bytes) / rate)} left` : '';
  return (
    `${phase} [${'#'.repeat(full)}${'-'.repeat(BAR_WIDTH - full)}] ${Math.floor(share * 100)} %  ` +
    `${formatBytes(bytes)} of ${formatBytes(totalBytes)}  ${speed}${left}`
  );
}
