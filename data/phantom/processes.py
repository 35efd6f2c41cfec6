"""Run a few independent jobs, some at a time in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from threading import Thread

from util.errors import UserError
from util.interrupt import leave_signals_to_the_first

Job = Callable[[], str]

# Read by numpy when a process starts. Its matrices are small here, and threads beside processes
# that fill the cores already only wait for each other: twice the time.
BLAS_THREADS = "OPENBLAS_NUM_THREADS"


def run_jobs(jobs: Sequence[Job], processes: int) -> Iterator[str]:
    """Call each job and yield its answer as soon as it is there.

    Args:
        jobs: without arguments, picklable where `processes` > 1.
        processes: jobs at once; 1 calls them in this process. More than one start fresh
            processes ("spawn", safe beside the threads of other libraries), which end with this
            one, on an error and on Ctrl-C.

    Raises:
        Exception: that of the first job that failed.
        UserError: a process ended without an answer (killed, out of memory).
    """
    if processes <= 1 or len(jobs) < 2:
        for job in jobs:
            yield job()
        return
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    known = os.environ.get(BLAS_THREADS)
    os.environ[BLAS_THREADS] = "1"
    pool = ProcessPoolExecutor(min(processes, len(jobs)), context, _end_with_the_first_process)
    try:
        for answer in as_completed([pool.submit(job) for job in jobs]):
            yield answer.result()
    except BrokenProcessPool as error:
        raise UserError(
            f"one of {processes} processes ended without an answer, as when memory runs out: allow "
            "more memory, or fewer processes (--processes of python -m data.phantom)"
        ) from error
    finally:
        if known is None:
            del os.environ[BLAS_THREADS]
        else:
            os.environ[BLAS_THREADS] = known
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
            process.join()


def _end_with_the_first_process() -> None:
    # Ctrl-C and schedulers reach every process of the group; the first ends the others in order.
    leave_signals_to_the_first()
    first = multiprocessing.parent_process()
    if first is not None:

        def watch() -> None:
            first.join()
            os._exit(1)

        Thread(target=watch, daemon=True).start()
