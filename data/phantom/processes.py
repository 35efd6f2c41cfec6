"""Run a few independent jobs, some at a time in processes of their own."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from util.errors import UserError

Job = Callable[[], str]


def run_jobs(jobs: Sequence[Job], processes: int) -> Iterator[str]:
    """Call each job and yield its answer as soon as it is there.

    Args:
        jobs: without arguments, picklable where `processes` > 1.
        processes: jobs at once; 1 calls them in this process. More than one start fresh
            processes ("spawn", safe beside the threads of other libraries), which end with this
            one, on an error and on Ctrl-C.

    Raises:
        UserError: that of the first job that failed.
        RuntimeError: a process ended without an answer (killed, out of memory).
    """
    if processes <= 1:
        for job in jobs:
            yield job()
        return
    waiting = list(jobs)[::-1]
    workers: dict[Connection, SpawnProcess] = {}
    try:
        for _ in range(min(processes, len(waiting))):
            connection, process = _start()
            workers[connection] = process
            connection.send(waiting.pop())
        busy = list(workers)
        while busy:
            ready = wait(busy)
            for connection in [one for one in busy if one in ready]:
                answer = _answer(connection, workers[connection])
                if waiting:
                    connection.send(waiting.pop())
                else:
                    busy.remove(connection)
                yield answer
    finally:
        for connection, process in workers.items():
            process.terminate()
            process.join()
            connection.close()


def _start() -> tuple[Connection, SpawnProcess]:
    context = multiprocessing.get_context("spawn")
    connection, far_end = context.Pipe()
    process = context.Process(target=_work, args=(far_end,), daemon=True)
    process.start()
    # This process's own copy: while it is open, a dead worker would not be noticed.
    far_end.close()
    return connection, process


def _answer(connection: Connection, process: SpawnProcess) -> str:
    try:
        failed, text = connection.recv()
    except (EOFError, ConnectionError):
        process.join()
        raise RuntimeError(f"a process ended with exit code {process.exitcode}") from None
    if failed:
        raise UserError(text)
    return str(text)


def _work(connection: Connection) -> None:
    # Ctrl-C reaches every process of the terminal; the first one ends the others in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        job = connection.recv()
        try:
            connection.send((False, job()))
        except UserError as error:
            connection.send((True, str(error)))
