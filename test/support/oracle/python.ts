import { fileURLToPath } from 'node:url';

/** The path of a Python file of this folder. Seen from dist/test/support/oracle; Python stays where it is written. */
export function script(name: string): string {
  return fileURLToPath(new URL(`../../../../test/support/oracle/${name}`, import.meta.url));
}
