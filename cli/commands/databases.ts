import { defineCommand, EXIT_DONE } from '../command.js';
import { formatTable } from '../format.js';
import { configOptions, jsonOption } from '../options.js';
import { type ConfigArgs, requireConfig, showAddress } from '../source.js';

/** `jetlite databases`: what the configuration names. */
export const databasesCommand = defineCommand({
  command: 'databases',
  describe: 'List the databases of the configuration',
  options: (yargs) => jsonOption(configOptions(yargs)),
  run: async (args: ConfigArgs & { readonly json: boolean }, context) => {
    const config = await requireConfig(args, context);
    const rows = config.databases.map(({ path, replica }) => ({
      path,
      replica: showAddress(replica.address),
    }));
    if (args.json) context.terminal.json(rows);
    else
      context.terminal.result(
        formatTable(
          ['path', 'replica'],
          rows.map(({ path, replica }) => [path, replica]),
        ),
      );
    return EXIT_DONE;
  },
});
