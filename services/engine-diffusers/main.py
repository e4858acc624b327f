"""Starts the engine where nothing is installed but its requirements: `python main.py`, or `--help`."""

from engine_diffusers.process import main

if __name__ == "__main__":
    main()
