"""What a GPU gets out of the engine. Programs, not part of it: `npm run model:random`, `npm run bench:gpu`."""
