"""What a worker process owes the one that started it."""

import multiprocessing
import os
import signal
import threading


def follow_parent() -> None:
    """In a worker: leave Ctrl-C to the parent, and end when that ends, however it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
