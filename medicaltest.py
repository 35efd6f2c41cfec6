"""Super-resolve clinical CT, or measure a trained model: `python medicaltest.py --method NAME`."""

from __future__ import annotations

from options import TestOptions
from options.base_options import format_options
from options.presets import ALSO_LISTED
from util.disk.cache_folder import cache_in_words
from util.errors import run_program
from util.privacy import keep_all


def main(arguments: list[str]) -> int:
    """Run the test method that the command-line words name; returns the exit code."""
    options, parser = TestOptions().parse(arguments)
    keep_all(options.keep_identity)
    # Imported here, not above, so that --help and a wrong flag answer before torch is loaded.
    from methods.dry_run import dry_run
    from methods.export import export_onnx
    from methods.pages.compare import compare
    from methods.registry import TEST_METHODS

    print(f"options\n{format_options(parser, options)}\n")
    if options.compare:
        return compare(options)
    if options.dry_run:
        return dry_run(options)
    if options.export:
        return export_onnx(options)
    return TEST_METHODS[options.method](options)


if __name__ == "__main__":
    ALSO_LISTED.append(cache_in_words)
    run_program(main)
