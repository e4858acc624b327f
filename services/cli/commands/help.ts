/** dmesh help: what there is, or how one command is called. */
import { UsageError } from '../arguments.js';
import { type Command, ExitCode } from '../command.js';

export function helpCommand(commands: () => readonly Command[]): Command {
  return {
    name: 'help',
    summary: 'show this, or how one command is called',
    usage: 'dmesh help [COMMAND]\n',
    run: async ([name, ...args], { terminal }) => {
      if (name === undefined) {
        terminal.out(overview(commands()));
        return ExitCode.OK;
      }
      const command = commands().find((one) => one.name === name);
      if (!command)
        throw new UsageError([
          `expected a command such as ${commands()
            .map((one) => one.name)
            .join(', ')}, got ${JSON.stringify(name)}`,
        ]);
      terminal.out(command.usageOf?.(args) ?? command.usage);
      return ExitCode.OK;
    },
  };
}

function overview(commands: readonly Command[]): string {
  return `dmesh: pictures from a mesh of GPUs

${commands.map(({ name, summary }) => `  ${name.padEnd(10)}${summary}`).join('\n')}

dmesh help COMMAND or dmesh COMMAND --help shows its options. DMESH_ROUTER (host:port) names the router,
DMESH_TOKEN says who asks. NO_COLOR=1 turns colours off.

Exit codes: 0 done · 1 failed · 2 the mesh refused (bad request, unknown name) · 3 unavailable, busy or
too late; may work later · 64 wrong command line · 130 interrupted.
`;
}
