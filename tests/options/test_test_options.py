from __future__ import annotations

import pytest
from option_helpers import (
    evaluation_options,
    option_names,
    options_read_in,
    refusal,
    sources,
)

from options import TestOptions
from options.presets import METHODS
from options.test_options import METHOD_OPTIONS

KNOWN_NAMES = (
    "method input checkpoint results_dir overwrite sampling_times normalization region patch_size "
    "allow_training_data slices windows degradation maskdatafolder name epoch load_iter gpu_ids "
    "precision checkpoints_dir debug"
)


@pytest.mark.parametrize("name", KNOWN_NAMES.split())
def test_known_names_are_there(name: str) -> None:
    assert name in option_names(TestOptions)


def test_no_option_is_without_effect() -> None:
    """Each is read by the code behind medicaltest.py."""
    read = options_read_in(sources("medicaltest.py", "methods", "util"))
    assert option_names(TestOptions) - read == set()


def test_defaults() -> None:
    options = evaluation_options()
    assert options.method == "smallpatchtest"
    assert options.region == "lung"
    assert options.results_dir == "results"
    assert options.patch_size is None
    assert not options.overwrite
    assert options.input is None
    assert options.checkpoint is None
    assert options.name is None


def test_several_inputs_are_a_list() -> None:
    assert evaluation_options("--input", "a.nii", "b c.nii").input == ["a.nii", "b c.nii"]


@pytest.mark.parametrize("words", [("--slices", "-10:"), ("--slices=-10:",), ("--slices", "-9:-3")])
def test_slices_from_the_end_are_no_flag(words: tuple[str, ...]) -> None:
    assert evaluation_options(*words).slices == words[-1].removeprefix("--slices=")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--checkpoint a.pt --name b", "both choose the model: give one of them"),
        ("--checkpoint a.pt --epoch 3", "leave out --checkpoint"),
        ("--checkpoint a.pt --load_iter 3", "leave out --checkpoint"),
        ("--patch_size 3", "expected at least 4 for the generator's padding of 3"),
        ("--patch_size 0", "expected a whole number of at least 1"),
        ("--method sharpen", "invalid choice: 'sharpen'"),
        ("--sampling_times 5", "invalid choice: 5"),
        ("--region all --maskdatafolder m", "leave one of them out"),
        ("--method microCTsmallpatchtest --region all", "--region has no effect with --method"),
        ("--method microCTsmallpatchtest --maskdatafolder m", "--maskdatafolder has no effect"),
        ("--method smallpatchtest --degradation zoom", "--degradation has no effect"),
        ("--allow_training_data", "--allow_training_data has no effect with --method small"),
        ("--method phantomtest --num_parts 2", "--num_parts has no effect with --method phantom"),
        ("--method phantomtest --patients 2 --input a", "--patients has no effect with --input"),
        ("--output_name SR.NII.GZ", "expected a name that ends in .nii or .nii.gz"),
        ("--normalization minmax --windows micro=0:9", "--windows has no effect with"),
        ("--norm_scope lung --region all", "needs the lung mask, which --region all leaves out"),
        (
            "--norm_scope slice --patch_size 32",
            "--norm_scope slice has no effect with",
        ),
        (
            "--method microCTsmallpatchtest --norm_scope lung",
            "--norm_scope lung has no effect with",
        ),
    ],
)
def test_contradictions_are_refused_with_the_fix(
    capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    assert message in refusal(capsys, "medicaltest.py", *words.split())


def test_flags_are_taken_where_they_act() -> None:
    for name, methods in METHOD_OPTIONS.items():
        assert name in option_names(TestOptions)
        assert set(methods) < set(METHODS), f"{name} acts everywhere: the entry is idle"
    words = ("--method", "wholevolumetest", "--region", "all", "--degradation", "zoom")
    assert evaluation_options(*words, "--allow_training_data").degradation == "zoom"


def test_published_tiles_by_either_flag() -> None:
    assert evaluation_options("--norm_scope", "patch").patch_size == 32
    options = evaluation_options("--patch_size", "48")
    assert (options.norm_scope, options.patch_size) == ("patch", 48)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--num_parts 3 --part_id 3", "--part_id is 3, expected 0 to 2 with --num_parts 3"),
        ("--num_parts 0", "expected a whole number of at least 1"),
        ("--part_id 1", "--part_id is 1, expected 0 to 0 with --num_parts 1"),
        ("--part_id -1", "expected a whole number of at least 0"),
        ("--max_memory 0", "expected a number above 0"),
        ("--max_memory inf", "expected a number above 0"),
        ("--norm_scope tile", "invalid choice"),
        ("--norm_scope volume --patch_size 32", "--norm_scope volume has no effect with"),
        ("--backend onnx", "invalid choice"),
        ("--output_name out/SR.nii", "expected a file name: folders go to --results_dir"),
        ("--output_name out\\SR.nii", "expected a file name: folders go to --results_dir"),
        ("--output_name uncertainty.nii.gz", "which is a companion's name"),
        ("--output_name SR.mha", "expected a name that ends in .nii or .nii.gz"),
        (f"--output_name {'n' * 250}.nii", "expected a name of at most 200 letters"),
        ("--output_name .nii.gz", "that is not hidden"),
        ("--output_name Clinical.nii", "which is a companion's name"),
        ("--export m.onnx --consistency", "--consistency has no effect with --export"),
        ("--export model.pt", "expected a name that ends in .onnx"),
        ("--export m.onnx --input a.nii", "--input has no effect with --export"),
        ("--export m.onnx --resume", "--resume has no effect with --export"),
        ("--method wholevolumetest --resume", "--resume has no effect with --method whole"),
        ("--method wholevolumetest --uncertainty", "--uncertainty has no effect with --method"),
        ("--method phantomtest --samples 4", "--samples has no effect with --method phantomtest"),
        ("--method stabilitytest --texture 1", "--texture has no effect with --method stability"),
        ("--samples 1", "expected at least 2"),
        ("--texture 0.5 --uncertainty", "not from a draw of texture: leave --texture out"),
        ("--samples 4 --texture 0.5", "--samples takes full texture by itself"),
        ("--texture 1 --self_ensemble", "--self_ensemble would average --texture away"),
        ("--samples 4 --self_ensemble", "both take a mean"),
        ("--texture 1 --patch_size 32", "cut tiles, which have no texture"),
        ("--samples 4 --norm_scope patch", "cut tiles, which have no texture"),
        ("--texture 1.5", "expected"),
        ("--method microCTsmallpatchtest --output_name a.nii", "--output_name has no effect"),
    ],
)
def test_inference_flags_are_checked(
    capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    assert message in refusal(capsys, "medicaltest.py", *words.split())


def test_inference_defaults_and_values() -> None:
    options = evaluation_options()
    assert (options.backend, options.max_memory, options.compile) == ("auto", None, False)
    assert (options.consistency, options.self_ensemble, options.uncertainty) == (False,) * 3
    assert (options.output_name, options.resume) == ("SR.nii.gz", False)
    assert (options.num_parts, options.part_id, options.export) == (1, 0, None)
    options = evaluation_options(
        "--max_memory", "1.5", "--backend", "openvino", "--num_parts", "4", "--part_id", "3"
    )
    assert (options.max_memory, options.backend) == (1.5, "openvino")
    assert (options.num_parts, options.part_id) == (4, 3)
    assert evaluation_options("--norm_scope", "volume").norm_scope == "volume"


@pytest.mark.parametrize("method", METHODS)
def test_flags_that_act_on_every_method(method: str) -> None:
    """Scores of an ensemble or of a consistent result can be had as well as the result."""
    words = ["--consistency", "--self_ensemble", "--norm_scope", "volume", "--compile"]
    words += ["--input", "a", "--truth", "b"] if method == "pairtest" else []
    options = evaluation_options("--method", method, *words)
    assert options.consistency
    assert options.self_ensemble


def test_an_export_takes_what_chooses_the_model() -> None:
    words = "--export m.onnx --name run --epoch 3 --overwrite --windows clinical=-900:300"
    options = evaluation_options(*words.split(), "--gpu_ids", "-1")
    assert options.export == "m.onnx"
