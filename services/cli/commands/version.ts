/** dmesh version: of this package and of the Node it runs on. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { packageRoot, thisProcess } from '#runtime';
import { type Command, ExitCode } from '../command.js';

export const version: Command = {
  name: 'version',
  summary: 'show the version',
  usage: 'dmesh version\n',
  run: async (_, { terminal }) => {
    const manifest = JSON.parse(await readFile(path.join(packageRoot, 'package.json'), 'utf8'));
    terminal.out(`dmesh ${manifest.version} (node ${thisProcess.nodeVersion})\n`);
    return ExitCode.OK;
  },
};
