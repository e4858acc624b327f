"""One JSON object a line on standard output, which the node passes on as its own log."""

import json
import sys
import threading
import time
from collections.abc import Callable

LEVELS = ("debug", "info", "warn", "error")

Log = Callable[..., None]


def json_log(min_level: str) -> Log:
    """log(level, msg, **fields), from any thread."""
    lock = threading.Lock()
    least = LEVELS.index(min_level)

    def log(level: str, msg: str, **fields: object) -> None:
        if LEVELS.index(level) < least:
            return
        line = {"level": level, "time": time.time_ns() // 1_000_000, "name": "engine-diffusers", "msg": msg, **fields}
        with lock:
            sys.stdout.write(json.dumps(line, default=str) + "\n")
            sys.stdout.flush()

    return log
