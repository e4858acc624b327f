/** From a command line to an exit code. */
import { UsageError } from './arguments.js';
import { type Command, type Context, ExitCode } from './command.js';
import { demo } from './commands/demo.js';
import { drain, resume } from './commands/drain.js';
import { generate } from './commands/generate.js';
import { helpCommand } from './commands/help.js';
import { jobs } from './commands/jobs.js';
import { models } from './commands/models.js';
import { nodes } from './commands/nodes.js';
import { routes } from './commands/routes.js';
import { submit } from './commands/submit.js';
import { token } from './commands/token.js';
import { top } from './commands/top.js';
import { up } from './commands/up.js';
import { version } from './commands/version.js';
import { describeFailure, exitCodeOf } from './failure.js';

const help = helpCommand(() => COMMANDS);
const COMMANDS: readonly Command[] = [generate, submit, jobs, models, nodes, top, drain, resume, routes, token, up, demo, help, version];
const ALIASES: Readonly<Record<string, string>> = { '--help': 'help', '-h': 'help', '--version': 'version', '-v': 'version' };

export async function dispatch(argv: readonly string[], context: Context): Promise<ExitCode> {
  const [first = 'help', ...args] = argv;
  const command = COMMANDS.find(({ name }) => name === (ALIASES[first] ?? first));
  try {
    if (!command)
      throw new UsageError([`expected a command such as ${COMMANDS.map(({ name }) => name).join(', ')}, got ${JSON.stringify(first)}`]);
    const wantsHelp = args.includes('--help') || args.includes('-h');
    return await (wantsHelp ? help.run([command.name, ...args], context) : command.run(args, context));
  } catch (error) {
    if (context.signal.aborted) {
      context.terminal.err('interrupted\n');
      return ExitCode.INTERRUPTED;
    }
    context.terminal.err(describeFailure(error, context.terminal.paint, command?.name));
    return exitCodeOf(error);
  }
}
