"""Super-resolve clinical CT, or measure a trained model: `python medicaltest.py --method NAME`."""

from __future__ import annotations

import sys

from options import TestOptions
from options.base_options import format_options
from util.errors import run_command_line


def main(arguments: list[str]) -> int:
    """Run the test method that the command-line words name; returns the exit code."""
    options, parser = TestOptions().parse(arguments)
    # Imported here, not above, so that --help and a wrong flag answer before torch is loaded.
    from methods.registry import TEST_METHODS

    print(f"options\n{format_options(parser, options)}\n")
    TEST_METHODS[options.method](options)
    return 0


if __name__ == "__main__":
    sys.exit(run_command_line(main, sys.argv[1:]))
