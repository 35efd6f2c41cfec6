from __future__ import annotations

import argparse
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from option_helpers import ROOT, evaluation_options, option_names, refusal, train_options

from options import TestOptions, TrainOptions
from options.base_options import (
    channels,
    format_options,
    fraction,
    given_names,
    layers,
    measure,
    non_negative_float,
    positive_float,
    positive_int,
    whole_number,
)

PROGRAMS = ("train.py", "medicaltest.py")
SHARED_NAMES = (
    "name checkpoints_dir gpu_ids precision epoch load_iter cache_dir debug maskdatafolder "
    "micro_spacing slices windows degradation"
)


@pytest.mark.parametrize("kind", [TrainOptions, TestOptions])
def test_both_scripts_know_the_shared_options(kind: type[TrainOptions] | type[TestOptions]) -> None:
    assert set(SHARED_NAMES.split()) <= option_names(kind)


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_is_fast_and_loads_no_package(program: str, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    answer = subprocess.run(
        [sys.executable, "-X", "importtime", str(ROOT / program), "--help"],
        capture_output=True, encoding="utf-8", cwd=tmp_path, check=True,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Time of the processor, which other work on the machine does not stretch.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0
    loaded = {line.rpartition("|")[2].strip() for line in answer.stderr.splitlines()}
    assert "argparse" in loaded
    assert not loaded & {"torch", "numpy", "scipy", "nibabel", "SimpleITK", "data", "models"}


@pytest.mark.parametrize("kind", [TrainOptions, TestOptions])
def test_help_explains_every_option_in_its_group_and_shows_defaults(
    kind: type[TrainOptions] | type[TestOptions],
) -> None:
    parser = kind().build()
    text = parser.format_help()
    for action in parser._actions:
        if action.help == argparse.SUPPRESS:
            continue  # takes back another one
        assert action.help, f"{action.dest} has no help"
        assert action.option_strings[-1] in text
        if action.default not in (None, False, "==SUPPRESS==") and action.dest != "help":
            assert "%(default)" not in text
            assert re.search(rf"--{action.dest}\b", text)
    titles = {group.title for group in parser._action_groups if group._group_actions}
    assert {"run", "volumes"} < titles
    assert "(default: checkpoints)" in text
    assert "(default: None)" not in text


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--micro_spacing", "1", "2"), "one positive number or three (x y z)"),
        (("--micro_spacing", "0"), "one positive number or three (x y z)"),
        (("--micro_spacing", "nan"), "one positive number or three (x y z)"),
        (("--gpu_ids", "first"), "expected all, -1 or numbers as in 0,1"),
        (("--gpu_ids", "0,"), "expected all, -1 or numbers as in 0,1"),
        (("--precision", "fp8"), "invalid choice: 'fp8'"),
        (("--degradation", "blur"), "invalid choice: 'blur'"),
        (("--nam", "x"), "unrecognized arguments: --nam"),  # no guessing at abbreviations
        (("--load_iter", "-1"), "got -1, expected a whole number of at least 0"),
        (("--load_iter", "many"), "invalid whole_number value: 'many'"),
    ],
)
def test_wrong_values_leave_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], program: str, words: tuple[str, ...], message: str
) -> None:
    assert message in refusal(capsys, program, *words)


@pytest.mark.parametrize("epoch", ["first", "0", "-1"])
def test_epoch_is_latest_or_a_number(capsys: pytest.CaptureFixture[str], epoch: str) -> None:
    message = refusal(capsys, "medicaltest.py", f"--epoch={epoch}")
    assert "expected latest, best or a number from 1" in message
    assert evaluation_options("--epoch", "12").epoch == "12"


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_wrong_flag_answers_before_torch_is_loaded(program: str, tmp_path: Path) -> None:
    code = (
        "import runpy, sys; sys.argv = [sys.argv[1], '--sampling_times', '9']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as leaving: print(leaving.code, 'torch' in sys.modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / program)],
        capture_output=True, encoding="utf-8", cwd=tmp_path, check=True,
        env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert answer.stdout == "2 False\n"
    assert answer.stderr.startswith("error: argument --sampling_times: invalid choice")
    assert answer.stderr.count("\n") == 1


def test_one_spacing_stands_for_all_three_directions() -> None:
    assert evaluation_options("--micro_spacing", "0.02").micro_spacing == (0.02, 0.02, 0.02)
    assert train_options("--micro_spacing", "1", "2", "3").micro_spacing == (1.0, 2.0, 3.0)
    assert train_options().micro_spacing is None


def test_number_types() -> None:
    assert (positive_int("1"), whole_number("0"), fraction("0.5")) == (1, 0, 0.5)
    assert non_negative_float("1e-5") == 1e-5
    for parse, text in (
        (positive_int, "0"),
        (whole_number, "-1"),
        (fraction, "1.1"),
        (fraction, "nan"),
        (non_negative_float, "inf"),
        (non_negative_float, "nan"),
        (non_negative_float, "-1"),
        (non_negative_float, "1e300"),
        (positive_float, "0"),
        (positive_float, "1e300"),
        (measure, "1e4"),
        (positive_int, "9" * 20),
        (whole_number, "9" * 20),
        (channels, "100000"),
        (layers, "17"),
    ):
        with pytest.raises(Exception, match=f"got {text}, expected"):
            parse(text)


def test_printed_options_mark_what_differs_from_the_default() -> None:
    options, parser = TestOptions().parse(["--results_dir", "elsewhere"])
    lines = format_options(parser, options).splitlines()
    assert len(lines) == len(vars(options))
    assert [line.strip() for line in lines] == sorted(line.strip() for line in lines)
    assert "results_dir: elsewhere   [default: results]" in {line.strip() for line in lines}
    assert "checkpoints_dir: checkpoints" in {line.strip() for line in lines}


def test_given_names_sees_both_spellings() -> None:
    parser = TestOptions().build()
    words = ["--name=a", "--slices", "0:2", "--overwrite", "--", "--debug"]
    assert {"name", "slices", "overwrite"} <= given_names(parser, words)
    assert "method" not in given_names(parser, words)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("medicaltest.py", ["--checkpoint", ""]),
        ("medicaltest.py", ["--results_dir="]),
        ("train.py", ["--clinical_folder", ""]),
        ("train.py", ["--val_micro_paths", "a.nii", ""]),
        ("train.py", ["--name", "", "--continue_train"]),
    ],
)
def test_a_variable_that_is_not_set_is_not_taken_for_nothing(
    capsys: pytest.CaptureFixture[str], program: str, words: list[str]
) -> None:
    assert 'is "", as by a variable that is not set' in refusal(capsys, program, *words)
