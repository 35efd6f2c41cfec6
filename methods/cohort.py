"""Many volumes in one call: shared among jobs, and not stopped by one that fails."""

from __future__ import annotations

import gc
import os
import sys
import traceback
from argparse import Namespace
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from util.disk.cache_folder import renew_use
from util.errors import UserError, is_out_of_memory, was_interrupted
from util.file_names import one_line
from util.processes import process_place

EXIT_SOME_FAILED = 1
LONGEST_WAIT = timedelta(days=30)  # shares may differ by many volumes

Item = TypeVar("Item")


def own_share(items: Sequence[Item], num_parts: int, part_id: int) -> list[Item]:
    """Items of one part: every `num_parts`-th, so that parts differ by one item at most.

    Under torchrun the processes share the part again in the same way.
    """
    rank, processes = process_place()
    return list(items[part_id * processes + rank :: num_parts * processes])


def wait_for_other_processes() -> None:
    """Under torchrun wait until every process has done its share.

    torchrun ends all processes as soon as one leaves with an error, so one that has had a failing
    case must stay until the others are through.
    """
    if process_place()[1] == 1 or "MASTER_ADDR" not in os.environ:
        return
    from torch import distributed

    distributed.init_process_group("gloo", timeout=LONGEST_WAIT)
    distributed.barrier()
    distributed.destroy_process_group()


def run_cases(
    options: Namespace,
    cases: Sequence[tuple[Path, Path]],
    work: Callable[[Path, Path], None],
) -> int:
    """Work through this job's share of the cases.

    A single case raises its error. Of several, one that fails is reported and the others go on;
    the failures are told again at the end.

    Args:
        options: num_parts, part_id and debug are used.
        cases: (input, results folder) of all of them.
        work: does one.

    Returns:
        Exit code: 0, or 1 where a case failed.
    """
    share = own_share(cases, options.num_parts, options.part_id)
    if len(cases) == 1:
        for path, folder in share:
            work(path, folder)
        if not share:
            print("this job did 0 of 1 cases")
        return 0
    failed: dict[Path, str] = {}
    for number, (path, folder) in enumerate(share, start=1):
        renew_use()
        print(one_line(f"case {number} of {len(share)}: {path}"))
        try:
            work(path, folder)
            continue
        except Exception as error:  # one bad case must not cost the night's others
            if was_interrupted(error):
                raise KeyboardInterrupt from error
            # A user error and a lack of memory explain themselves; anything else is a fault here.
            if options.debug or not (isinstance(error, UserError) or is_out_of_memory(error)):
                traceback.print_exc()
            failed[path] = one_line(str(error) or type(error).__name__)
            line = one_line(f"error: {path}: {failed[path]}; going on with the next case")
            print(line, file=sys.stderr)
        # Nothing of a failed case may stay that the next one's memory is planned around. Only
        # here, since in the handler the error still holds what the case had open.
        gc.collect()
    if len(share) < len(cases):
        print(f"this job did {len(share)} of {len(cases)} cases")
    wait_for_other_processes()
    if not failed:
        return 0
    print(f"error: {len(failed)} of {len(share)} cases failed:", file=sys.stderr)
    for path, reason in failed.items():
        print(one_line(f"  {path}: {reason}"), file=sys.stderr)
    return EXIT_SOME_FAILED
