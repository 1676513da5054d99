import { fileURLToPath } from 'node:url';
import { peerPath } from '../peers.js';

/** The command that runs a Python file of this folder. Seen from dist/test/support/oracle; Python stays in the sources. */
export function python(script: string, ...args: string[]): [program: string, args: string[]] {
  const path = fileURLToPath(new URL(`../../../../test/support/oracle/${script}`, import.meta.url));
  return [peerPath('python3') ?? 'python3', ['-B', path, ...args]];
}
