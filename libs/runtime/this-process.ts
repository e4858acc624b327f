/** What a program that starts other programs needs to know about itself. */
import type { Env } from './env.js';

export const thisProcess: { readonly pid: number; readonly nodePath: string; readonly env: Env } = {
  pid: process.pid,
  nodePath: process.execPath,
  env: process.env,
};
