/** What a program that starts other programs needs to know about itself. */
import type { Env } from './env.js';

export const thisProcess: { readonly pid: number; readonly nodePath: string; readonly nodeVersion: string; readonly env: Env } = {
  pid: process.pid,
  nodePath: process.execPath,
  nodeVersion: process.versions.node,
  env: process.env,
};
