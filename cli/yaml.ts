/**
 * YAML as a tree that remembers its lines. Scalars stay text: what a value means is for the reader of its key to say, so
 * that a password of digits stays a password.
 */

import { EVENT_ID, type Event, getScalarValue, parseEvents, SCALAR_STYLE, YAMLException } from 'js-yaml';
import { JetliteError } from '../lib/errors.js';

export interface YamlScalar {
  readonly kind: 'scalar';
  /** Undefined for null: nothing, `~` or `null`. */
  readonly text: string | undefined;
  readonly line: number;
  /** Variables in it that stand for nothing, in their order. */
  readonly unset: readonly UnsetVariable[];
  /** An unquoted sign before the text, or instead of it, that was perhaps meant to be a part of it. */
  readonly sign: '&' | '#' | undefined;
}

export interface UnsetVariable {
  /** For messages: its name, where it is not perhaps a part of a password with a dollar sign in it. */
  readonly shown: string;
  /** What comes after it, not expanded. */
  readonly rest: string;
}

/** A scalar with its variables replaced. */
export interface Expanded {
  readonly text: string;
  readonly unset: readonly UnsetVariable[];
}

export interface YamlList {
  readonly kind: 'list';
  readonly items: readonly YamlNode[];
  readonly line: number;
}

export interface YamlMap {
  readonly kind: 'map';
  /** By key; a key stands once. */
  readonly entries: ReadonlyMap<string, YamlEntry>;
  readonly line: number;
}

export interface YamlEntry {
  readonly value: YamlNode;
  /** Of the key. */
  readonly line: number;
}

/** Tags that say what is true anyway, or what the reader of a key finds out: these change nothing. */
const TAGS = /^!(?:!(?:str|int|float|bool|null|seq|map))?$/;

const QUOTE_TAG = 'Put a value that begins with ! in quotes.';

export type YamlNode = YamlScalar | YamlList | YamlMap;

/** Lines that `text` has before each offset. */
class Lines {
  readonly #starts: number[] = [0];

  constructor(text: string) {
    for (let at = text.indexOf('\n'); at !== -1; at = text.indexOf('\n', at + 1)) this.#starts.push(at + 1);
  }

  lineOf(offset: number): number {
    let low = 0;
    let high = this.#starts.length;
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      if (this.#starts[middle] <= offset) low = middle;
      else high = middle;
    }
    return low + 1;
  }
}

/**
 * The one document of a file; undefined if it is empty. `file` is its name for messages. `expand` is given the text
 * of every scalar value (not of keys) with its line. Throws USAGE with file and line for what is no YAML.
 */
export function parseYaml(
  source: string,
  file: string,
  expand: (text: string, line: number) => Expanded,
): YamlNode | undefined {
  const refuse = (line: number, reason: string, hint?: string): never => {
    throw new JetliteError('USAGE', `${file}:${line}: ${reason}`, hint === undefined ? {} : { hint });
  };
  let events: Event[];
  try {
    events = parseEvents(source, { maxDepth: 32 });
  } catch (error) {
    if (!(error instanceof YAMLException)) throw error;
    const line = (error.mark?.line ?? 0) + 1;
    const inFlow = /[[{,][^\n#]*\$\{/.test(source.split('\n')[line - 1] ?? '');
    // What is quoted may be a part of a password that begins with an exclamation mark.
    const reason = error.reason.replace(/ "!.*"/, '');
    if (/\btag\b/.test(reason)) return refuse(line, reason, QUOTE_TAG);
    return refuse(line, reason, inFlow ? 'Inside { } or [ ], put a variable in quotes.' : undefined);
  }

  const lines = new Lines(source);
  const sourceLines = source.split('\n');
  const anchors = new Map<string, YamlNode>();
  const aliases = new Set(
    events.map((event) =>
      event.type === EVENT_ID.ALIAS ? source.slice(event.anchorStart, event.anchorEnd) : '',
    ),
  );
  let at = 0;
  let line = 1;

  const remember = (event: { anchorStart: number; anchorEnd: number }, node: YamlNode): YamlNode => {
    if (event.anchorStart >= 0) anchors.set(source.slice(event.anchorStart, event.anchorEnd), node);
    return node;
  };

  const refuseTag = (event: { tagStart: number; tagEnd: number }): void => {
    if (event.tagStart < 0 || TAGS.test(source.slice(event.tagStart, event.tagEnd))) return;
    // Not named: a password may begin with an exclamation mark.
    refuse(
      lines.lineOf(event.tagStart),
      'an unquoted ! stands for a tag, and this is none that is known here',
      QUOTE_TAG,
    );
  };

  const signOf = (event: Extract<Event, { type: typeof EVENT_ID.SCALAR }>): YamlScalar['sign'] => {
    if (event.anchorStart >= 0) {
      return aliases.has(source.slice(event.anchorStart, event.anchorEnd)) ? undefined : '&';
    }
    const isAbsent = event.style === SCALAR_STYLE.PLAIN && event.valueStart < 0;
    return isAbsent && /:\s+#\S/.test(sourceLines[line - 1] ?? '') ? '#' : undefined;
  };

  const readNode = (isKey: boolean): YamlNode => {
    const event = events[at++];
    if ('tagStart' in event) refuseTag(event);
    switch (event.type) {
      case EVENT_ID.SCALAR: {
        if (event.valueStart >= 0) line = lines.lineOf(event.valueStart);
        const text = getScalarValue(source, event);
        const isNull = event.style === SCALAR_STYLE.PLAIN && /^(?:|~|null|Null|NULL)$/.test(text);
        const { unset, ...expanded } = isNull || isKey ? { text, unset: [] } : expand(text, line);
        return remember(event, {
          kind: 'scalar',
          text: isNull ? undefined : expanded.text,
          line,
          unset,
          sign: isKey ? undefined : signOf(event),
        });
      }
      case EVENT_ID.ALIAS: {
        const name = source.slice(event.anchorStart, event.anchorEnd);
        return (
          anchors.get(name) ??
          // Not named: a password may begin with an asterisk.
          refuse(
            lines.lineOf(event.anchorStart),
            'an unquoted * stands for an anchor, and there is none above',
          )
        );
      }
      case EVENT_ID.SEQUENCE: {
        line = lines.lineOf(event.start);
        const start = line;
        const items: YamlNode[] = [];
        while (events[at].type !== EVENT_ID.POP) items.push(readNode(false));
        at++;
        return remember(event, { kind: 'list', items, line: start });
      }
      case EVENT_ID.MAPPING: {
        line = lines.lineOf(event.start);
        const start = line;
        const entries = readEntries();
        return remember(event, { kind: 'map', entries, line: start });
      }
      default:
        throw new TypeError(`YAML event ${event.type} where a node begins`);
    }
  };

  const readEntries = (): Map<string, YamlEntry> => {
    const entries = new Map<string, YamlEntry>();
    const merged: YamlNode[] = [];
    while (events[at].type !== EVENT_ID.POP) {
      const key = readNode(true);
      const keyLine = key.line;
      if (key.kind !== 'scalar' || key.text === undefined) return refuse(keyLine, 'expected a name as key');
      const value = readNode(false);
      if (key.text === '<<') merged.push(value);
      else if (entries.has(key.text)) refuse(keyLine, `${key.text}: the key stands here a second time`);
      else entries.set(key.text, { value, line: keyLine });
    }
    at++;
    // `<<: *anchor` fills in what the mapping itself does not say.
    for (const node of merged) {
      for (const source of node.kind === 'list' ? node.items : [node]) {
        if (source.kind !== 'map') return refuse(source.line, '<<: expected a mapping to take keys from');
        for (const [key, entry] of source.entries) if (!entries.has(key)) entries.set(key, entry);
      }
    }
    return entries;
  };

  const documents = events.filter((event) => event.type === EVENT_ID.DOCUMENT).length;
  if (documents === 0) return undefined;
  if (documents > 1) refuse(1, `expected one document, found ${documents}`);
  at = 1;
  return events[at].type === EVENT_ID.POP ? undefined : readNode(false);
}
