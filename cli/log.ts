/**
 * The log: one line per event on stderr, as text for people or as JSON for machines. Results never go here.
 */

import { styleText } from 'node:util';
import { withoutSecrets } from '../lib/replica/nats/address.js';
import { showTxid } from './format.js';

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export type LogType = 'text' | 'json';

export interface LogSettings {
  readonly level?: LogLevel;
  readonly type?: LogType;
}

/** Values beside the message. A bigint is a TXID and shown as one. */
export type LogFields = Readonly<Record<string, unknown>>;

export interface Log {
  write(level: LogLevel, message: string, fields?: LogFields): void;
  /** Whether an event of this level would be written. */
  shows(level: LogLevel): boolean;
  configure(settings: LogSettings): void;
}

/**
 * Litestream's `trace` is taken for `debug`, the finest level here. Undefined if the name is none.
 */
export function parseLogLevel(name: string): LogLevel | undefined {
  const lower = name.toLowerCase();
  if (lower === 'trace') return 'debug';
  if (lower === 'warning') return 'warn';
  return LOG_LEVELS.find((level) => level === lower);
}

/** `writeLine` gets each event without its line end; `colour` only where a person looks. */
export function createLog(writeLine: (line: string) => void, colour: boolean): Log {
  let level: LogLevel = 'info';
  let type: LogType = 'text';
  return {
    shows: (asked) => LOG_LEVELS.indexOf(asked) >= LOG_LEVELS.indexOf(level),
    configure(settings) {
      level = settings.level ?? level;
      type = settings.type ?? type;
    },
    write(at, message, fields = {}) {
      if (!this.shows(at)) return;
      const time = new Date().toISOString();
      const shown = withoutSecrets(message);
      writeLine(
        type === 'json'
          ? JSON.stringify({ time, level: at, message: shown, ...fields }, showTxid)
          : `${time} ${paint(at, colour)} ${shown}${textFields(fields)}`,
      );
    },
  };
}

const COLOURS = { debug: 'gray', info: 'cyan', warn: 'yellow', error: 'red' } as const;

function paint(level: LogLevel, colour: boolean): string {
  const word = level.toUpperCase().padEnd(5);
  return colour ? styleText(COLOURS[level], word) : word;
}

function textFields(fields: LogFields): string {
  let text = '';
  for (const [key, value] of Object.entries(fields)) {
    if (value === undefined) continue;
    const shown = typeof value === 'string' ? value : (JSON.stringify(value, showTxid) ?? String(value));
    text += ` ${key}=${/[\s"=]/.test(shown) && typeof value === 'string' ? JSON.stringify(shown) : shown}`;
  }
  return text;
}
