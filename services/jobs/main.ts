#!/usr/bin/env node
/** Starts a replica of the jobs service: settings from the environment, listed by --help. */
import { hostname } from 'node:os';
import { expectLargeBuffers, processHost, runProgram, systemClock, systemRandom } from '#runtime';
import { jobsProgram } from './program.js';

expectLargeBuffers();

const terminal = process.stdout.isTTY ?? false;
const program = jobsProgram({ hostName: hostname(), terminal, clock: systemClock, random: systemRandom, wallNow: Date.now });
await runProgram(program, processHost());
