"""Several tasks at once, each in a process of its own: what goes wrong in one is a result, and ends nothing else."""

import multiprocessing
import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch

from vit.processes import follow_parent

Task = TypeVar("Task")
PRELOADED = ["vit.run", "vit.evaluate"]  # minutes of imports over a grid, paid once


class Failed(NamedTuple):
    """What a task ended with instead of a result."""

    error: str


class Job(NamedTuple):
    """A process at work."""

    process: BaseProcess
    receiver: Connection


class Pool(Generic[Task]):
    """Run ``work(task)`` for each task, at most ``workers`` at a time.

    On a CPU, processes are forked from this one, whose imports and settings they share; this one has to be
    free of threads. On CUDA, which survives no fork, they are forked from a clean server that has only imported. A
    worker ends when this process does, however that ends.

    Args:
        work: called in a worker, with its terminal output going to the task's log.
        log: where a task's output goes; the file is left where the task failed.
        workers: at a time.
        threads: of torch, in each.
        cuda: whether workers use CUDA.
    """

    def __init__(
        self,
        work: Callable[[Task], dict[str, Any]],
        log: Callable[[Task], Path],
        workers: int,
        threads: int,
        cuda: bool = False,
    ) -> None:
        self.work, self.log, self.workers, self.threads = work, log, workers, threads
        methods = multiprocessing.get_all_start_methods()
        wanted = "forkserver" if cuda else "fork"
        self._context = multiprocessing.get_context(wanted if wanted in methods else "spawn")
        if wanted == "forkserver" and wanted in methods:
            self._context.set_forkserver_preload(PRELOADED)
        self.running: dict[Task, Job] = {}

    def results(
        self, tasks: Sequence[Task], tick: Callable[[], None]
    ) -> Iterator[tuple[Task, dict[str, Any] | Failed]]:
        """Results in the order in which tasks end; ``tick`` is called about once a second in between."""
        waiting = deque(tasks)
        try:
            while waiting or self.running:
                while waiting and len(self.running) < self.workers:
                    self._start(waiting.popleft())
                wait([job.receiver for job in self.running.values()], timeout=1.0)
                tick()
                for task in [task for task, job in self.running.items() if job.receiver.poll()]:
                    yield task, self._result(task)
        finally:
            for job in self.running.values():
                job.process.kill()
                job.process.join()
            self.running.clear()

    def _start(self, task: Task) -> None:
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(  # pyright: ignore[reportAttributeAccessIssue]
            target=_run, args=(self.work, task, sender, self.log(task), self.threads)
        )
        process.start()
        sender.close()  # so that the worker's death is the end of the pipe
        self.running[task] = Job(process, receiver)

    def _result(self, task: Task) -> dict[str, Any] | Failed:
        process, receiver = self.running.pop(task)
        try:
            result = receiver.recv()
        except EOFError:
            process.join()
            code = process.exitcode or 0
            memory = ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
            return Failed(
                f"the process ended by signal {-code}{memory}" if code < 0 else f"the process ended with {code}"
            )
        finally:
            receiver.close()
        process.join()
        return result


def _run(work: Callable[[Task], dict[str, Any]], task: Task, sender: Connection, log: Path, threads: int) -> None:
    """In the worker."""
    follow_parent()
    torch.set_num_threads(threads)
    log.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(file, stream.fileno())
    try:
        sender.send(work(task))
    except BaseException as error:
        traceback.print_exc()
        sender.send(Failed(" ".join(f"{type(error).__name__}: {error}".split())))
    else:
        log.unlink()
