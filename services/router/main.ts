#!/usr/bin/env node
/** Starts a router: configuration from the environment, see --help. */
import { hostname } from 'node:os';
import { processHost, runProgram, systemClock, systemRandom, thisProcess, watchParent } from '#runtime';
