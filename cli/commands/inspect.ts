import { defineCommand, EXIT_DONE, EXIT_FAILED } from '../command.js';

/** `jetlite inspect FILE`: one of SQLite's or Jetlite's files, decoded. */
export const inspectCommand = defineCommand({
  command: 'inspect <file>',
  describe: 'Show a database, WAL, -shm, journal or LTX file decoded, and whether it is sound',
  options: (yargs) =>
    yargs
      .positional('file', { type: 'string', demandOption: true, describe: 'The file; it is only read' })
      .option('json', { type: 'boolean', default: false, describe: 'Print JSON' }),
  async run({ file, json }, { terminal, signal }) {
    const { inspect } = await import('../inspect/inspect.js');
    const report = await inspect(file, signal);
    if (json) terminal.json(report.toJson());
    else terminal.result(report.toText());
    return report.isSound ? EXIT_DONE : EXIT_FAILED;
  },
});
