import { readFile } from 'node:fs/promises';
import { defineCommand, EXIT_DONE } from '../command.js';

/** `jetlite version`: of the program and of Node. */
export const versionCommand = defineCommand({
  command: 'version',
  describe: 'Print the version',
  options: (yargs) => yargs.option('json', { type: 'boolean', default: false, describe: 'Print JSON' }),
  async run({ json }, { terminal }) {
    // The compiled file lies in dist/cli/commands, three folders below the package.
    const text = await readFile(new URL('../../../package.json', import.meta.url), 'utf8');
    const { version } = JSON.parse(text) as { version: string };
    if (json) terminal.json({ version, node: process.versions.node });
    else terminal.result(`jetlite ${version}`);
    return EXIT_DONE;
  },
});
