/**
 * Reads one mapping of the configuration key by key. Every key that is read is known; `end` refuses the others. Messages name
 * file, line and key, and show a wrong value only where it cannot be a secret.
 */

import { JetliteError } from '../lib/errors.js';
import { DURATION_EXAMPLES, parseDuration, parseSize, SIZE_EXAMPLES } from './units.js';
import type { UnsetVariable, YamlEntry, YamlMap, YamlNode } from './yaml.js';

/** Where warnings go while a configuration is read; each is one line that names file, line and key. */
export type Warn = (warning: string) => void;

export class ConfigMap {
  readonly #file: string;
  readonly #path: string;
  readonly #warn: Warn;
  readonly #map: YamlMap;
  readonly #known = new Set<string>();

  constructor(file: string, path: string, node: YamlNode, warn: Warn) {
    this.#file = file;
    this.#path = path;
    this.#warn = warn;
    if (node.kind !== 'map') {
      throw usage(
        `${file}:${node.line}: ${path || 'the file'}: expected keys with values, found ${kindOf(node)}`,
      );
    }
    this.#map = node;
  }

  get line(): number {
    return this.#map.line;
  }

  /** Whether the key stands there with a value. */
  has(key: string): boolean {
    return this.#entry(key) !== undefined;
  }

  text(key: string): string | undefined {
    const entry = this.#entry(key);
    if (entry === undefined) return undefined;
    if (entry.value.kind !== 'scalar') return this.refuse(key, `expected text, found ${kindOf(entry.value)}`);
    return entry.value.text;
  }

  /**
   * Text that lets somebody in, or names a file that does. A variable in it that is not set is a mistake, and so is a sign
   * that YAML takes for its own: what is left of the text would only be refused, much later and by somebody who cannot say
   * why.
   */
  secret(key: string): string | undefined {
    this.refuseUnset(key);
    const value = this.#map.entries.get(key)?.value;
    if (value?.kind === 'scalar' && value.sign !== undefined) {
      const { sign, line } = value;
      const meaning = sign === '&' ? 'names what follows' : 'begins a comment';
      throw usage(
        `${this.#where(key, line)}: an unquoted ${sign} ${meaning} and is no part of it`,
        `Put a value that begins with ${sign} in quotes.`,
      );
    }
    return this.text(key);
  }

  /** A mistake if a variable in this key's text or texts is not set; of several, one of those that `matters` to. */
  refuseUnset(key: string, matters: (variable: UnsetVariable) => boolean = () => true): void {
    const value = this.#map.entries.get(key)?.value;
    for (const node of value?.kind === 'list' ? value.items : [value]) {
      const found = node?.kind === 'scalar' ? node.unset.find(matters) : undefined;
      if (found === undefined) continue;
      throw usage(
        `${this.#where(key, (node as YamlNode).line)}: ${found.shown} is not set`,
        'Set it, or write a $ that stands for itself with --no-expand-env.',
      );
    }
  }

  flag(key: string): boolean | undefined {
    const text = this.text(key);
    if (text === undefined) return undefined;
    if (/^(?:true|yes|on)$/i.test(text)) return true;
    if (/^(?:false|no|off)$/i.test(text)) return false;
    return this.refuse(key, `expected true or false, found "${text}"`);
  }

  /** A whole number of at least `least`. */
  integer(key: string, least: number): number | undefined {
    const text = this.text(key);
    if (text === undefined) return undefined;
    const value = Number(text);
    if (/^[+-]?\d+$/.test(text) && Number.isSafeInteger(value) && value >= least) return value;
    return this.refuse(key, `expected a whole number of at least ${least}, found "${text}"`);
  }

  /** Milliseconds, more than 0. */
  duration(key: string): number | undefined {
    const text = this.text(key);
    if (text === undefined) return undefined;
    const ms = parseDuration(text);
    if (ms === undefined) return this.refuse(key, `expected ${DURATION_EXAMPLES}, found "${text}"`);
    return ms > 0 ? ms : this.refuse(key, `expected a duration of more than 0, found "${text}"`);
  }

  /** Bytes, at least 1. */
  size(key: string): number | undefined {
    const text = this.text(key);
    if (text === undefined) return undefined;
    const bytes = parseSize(text);
    return bytes !== undefined && bytes > 0
      ? bytes
      : this.refuse(key, `expected ${SIZE_EXAMPLES}, found "${text}"`);
  }

  oneOf<T extends string>(key: string, choices: readonly T[]): T | undefined {
    const text = this.text(key);
    if (text === undefined) return undefined;
    const choice = choices.find((name) => name === text.toLowerCase());
    return choice ?? this.refuse(key, `expected ${choices.join(' or ')}, found "${text}"`);
  }

  texts(key: string): string[] | undefined {
    return this.#items(key)?.map((item, i) => {
      if (item.kind === 'scalar' && item.text !== undefined && item.text !== '') return item.text;
      return this.refuse(`${key}[${i}]`, `expected text, found ${kindOf(item)}`, item.line);
    });
  }

  map(key: string): ConfigMap | undefined {
    const entry = this.#entry(key);
    return entry && new ConfigMap(this.#file, this.#pathOf(key), entry.value, this.#warn);
  }

  maps(key: string): ConfigMap[] | undefined {
    return this.#items(key)?.map(
      (item, i) => new ConfigMap(this.#file, `${this.#pathOf(key)}[${i}]`, item, this.#warn),
    );
  }

  /** Says that a key has no effect, if it is there. */
  ignore(key: string, why: string): void {
    const entry = this.#entry(key);
    if (entry !== undefined) this.#warn(`${this.#where(key, entry.line)} has no effect: ${why}`);
  }

  /** A mistake about this key. */
  refuse(key: string, message: string, line = this.#map.entries.get(key)?.line ?? this.#map.line): never {
    throw usage(`${this.#where(key, line)}: ${message}`);
  }

  /** A mistake about the mapping as a whole; one of `missing` would mend it, perhaps under a name mistyped. */
  refuseAll(message: string, missing: readonly string[]): never {
    for (const [key, { line }] of this.#map.entries) {
      const near = missing.includes(key) ? undefined : nearest(key, missing);
      if (near !== undefined)
        throw usage(`${this.#where(key, line)}: there is no such key`, `Did you mean ${near}?`);
    }
    throw usage(`${this.#file}:${this.#map.line}: ${this.#path || 'the file'}: ${message}`);
  }

  /** Refuses every key that nobody asked for. */
  end(): void {
    for (const [key, { line }] of this.#map.entries) {
      if (this.#known.has(key)) continue;
      const near = nearest(key, this.#known);
      const known = [...this.#known].sort().join(', ');
      throw usage(
        `${this.#where(key, line)}: there is no such key`,
        near === undefined ? `Known here: ${known}.` : `Did you mean ${near}?`,
      );
    }
  }

  #items(key: string): readonly YamlNode[] | undefined {
    const entry = this.#entry(key);
    if (entry === undefined) return undefined;
    if (entry.value.kind !== 'list') return this.refuse(key, `expected a list, found ${kindOf(entry.value)}`);
    return entry.value.items;
  }

  /** A key without a value, or with one that expands to nothing, is as good as absent. */
  #entry(key: string): YamlEntry | undefined {
    this.#known.add(key);
    const entry = this.#map.entries.get(key);
    return entry?.value.kind === 'scalar' && !entry.value.text ? undefined : entry;
  }

  #pathOf(key: string): string {
    return this.#path === '' ? key : `${this.#path}.${key}`;
  }

  #where(key: string, line: number): string {
    return `${this.#file}:${line}: ${this.#pathOf(key)}`;
  }
}

function usage(message: string, hint?: string): JetliteError {
  return new JetliteError('USAGE', message, hint === undefined ? {} : { hint });
}

function kindOf(node: YamlNode): string {
  if (node.kind === 'scalar')
    return node.text === undefined || node.text === '' ? 'nothing' : 'a single value';
  return node.kind === 'list' ? 'a list' : 'a mapping';
}

/** The known key that differs from `key` by no more than two letters. */
function nearest(key: string, known: Iterable<string>): string | undefined {
  let best: string | undefined;
  let bestDistance = 3;
  for (const candidate of known) {
    const distance = editDistance(key.toLowerCase().replaceAll('_', '-'), candidate);
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(change, row[j] + 1, next[j - 1] + 1));
    }
    row = next;
  }
  return row[b.length];
}
