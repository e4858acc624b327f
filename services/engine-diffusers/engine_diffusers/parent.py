"""A process that a node started must not outlive it, not even when the node was killed and could say nothing."""

import os
import threading
import time
from collections.abc import Callable

_LOOK_EVERY_S = 0.5


def watch_parent(pid: int, on_gone: Callable[[], None]) -> None:
    """Calls back once, on a thread of its own, when that process is gone; 0: never."""
    if pid <= 0:
        return
    # The parent process id changes at the parent's death even while the dead parent waits to be reaped.
    is_direct_child = os.getppid() == pid

    def look() -> None:
        while os.getppid() == pid if is_direct_child else _exists(pid):
            time.sleep(_LOOK_EVERY_S)
        on_gone()

    threading.Thread(target=look, name="parent", daemon=True).start()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
