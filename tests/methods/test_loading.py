from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from method_helpers import POLICY
from option_helpers import evaluation_options
from training_helpers import write_case, write_checkpoint

import methods.loading
from data.phantom.training_set import PhantomPaths
from data.volumes.volume import Volume
from data.windows import CLINICAL_WINDOW, IntensityWindow, WindowPolicy
from methods.loading import (
    choose_test_windows,
    input_paths,
    load_model,
    norm_pixels,
    refuse_existing,
    refuse_own_inputs,
    result_folders,
    trained_or_shipped,
    warn_if_outside,
)
from models.checkpoints.checkpoint import LoadedGenerator
from models.networks import SRGenerator
from util.errors import UserError


def loaded(windows: WindowPolicy | None) -> LoadedGenerator:
    stored = None if windows is None else windows.as_dict()
    return LoadedGenerator(SRGenerator(1, 2, 1), stored, frozenset(), Path("net.pt"), 3, {})


def options_in(folder: Path, *words: str) -> Namespace:
    return evaluation_options("--gpu_ids", "-1", "--checkpoints_dir", str(folder), *words)


def test_the_last_trained_model_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_checkpoint(tmp_path, "first", seed=1)
    write_checkpoint(tmp_path, "second", seed=2)
    model = load_model(options_in(tmp_path))
    assert model.loaded.origin == tmp_path / "second" / "latest.pt"
    assert model.scale == 2
    assert model.windows == POLICY
    said = capsys.readouterr().out
    assert said == (
        f"model {model.loaded.origin} (step 5), 2x, on cpu with {model.resolver.backend} in fp32, "
        "window normalization, norm statistics of the lung\n"
    )
    by_name = load_model(options_in(tmp_path, "--name", "first"))
    assert by_name.loaded.origin == tmp_path / "first" / "latest.pt"


@pytest.mark.parametrize(
    ("trained", "words", "from_lung"),
    [
        ("unpaired", (), True),
        ("unpaired", ("--norm_scope", "slice"), False),
        ("unpaired", ("--region", "all"), False),
        ("unpaired", ("--patch_size", "32"), False),
        ("public_2D", (), False),
        ("public_2D", ("--norm_scope", "lung"), True),
        (None, (), False),
    ],
)
def test_norm_statistics_are_those_of_the_training_patches(
    trained: str | None, words: tuple[str, ...], from_lung: bool
) -> None:
    known = replace(loaded(POLICY), options={} if trained is None else {"dataset_mode": trained})
    assert norm_pixels(known, evaluation_options(*words))[1] is from_lung


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_networks_without_instance_norm_take_no_statistics(norm: str) -> None:
    known = replace(
        loaded(POLICY), generator=SRGenerator(1, 4, 1, norm), options={"dataset_mode": "unpaired"}
    )
    assert norm_pixels(known, evaluation_options()) == ("none", False)
    assert norm_pixels(known, evaluation_options("--patch_size", "32")) == ("patch", False)
    with pytest.raises(UserError, match="norm, which takes no statistics from the image: leave"):
        norm_pixels(known, evaluation_options("--norm_scope", "lung"))


def test_before_any_training_the_projects_weights_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[int] = []

    def shipped(scale: int) -> Path | None:
        asked.append(scale)
        return tmp_path / f"sr_x{scale}.safetensors" if scale == 4 else None

    monkeypatch.setattr(methods.loading, "shipped_weights", shipped)
    words = ("--checkpoints_dir", str(tmp_path / "none"))
    taken = trained_or_shipped(evaluation_options(*words, "--sampling_times", "2"))
    assert taken == tmp_path / "sr_x4.safetensors"
    assert "nothing was trained in" in capsys.readouterr().out
    with pytest.raises(UserError, match="nothing has been trained"):
        trained_or_shipped(evaluation_options(*words))
    assert asked == [4, 8]
    # What the user trained or names comes first.
    (tmp_path / "own").mkdir()
    (tmp_path / "last_experiment.txt").write_text("own\n")
    own = ("--checkpoints_dir", str(tmp_path), "--sampling_times", "2")
    assert trained_or_shipped(evaluation_options(*own)) == tmp_path / "own" / "latest.pt"
    named = evaluation_options(*words, "--name", "other", "--sampling_times", "2")
    assert trained_or_shipped(named) == tmp_path / "none" / "other" / "latest.pt"


def test_a_kept_checkpoint_is_taken_by_epoch_or_step(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, "run")
    for name in ("epoch_3", "iter_40"):
        path.with_name(f"{name}.pt").write_bytes(path.read_bytes())
    assert load_model(options_in(tmp_path, "--epoch", "3")).loaded.origin.name == "epoch_3.pt"
    assert load_model(options_in(tmp_path, "--load_iter", "40")).loaded.origin.name == "iter_40.pt"
    with pytest.raises(UserError, match=r"no checkpoint .*epoch_4\.pt: there is epoch_3\.pt"):
        load_model(options_in(tmp_path, "--epoch", "4"))


def test_a_checkpoint_by_its_path(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, "run")
    model = load_model(options_in(tmp_path / "elsewhere", "--checkpoint", str(path)))
    assert model.loaded.origin == path


def test_patch_size_and_precision_reach_the_resolver(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "run")
    resolver = load_model(options_in(tmp_path, "--patch_size", "9")).resolver
    assert (resolver.tile_size, resolver.precision) == (9, "fp32")
    resolver = load_model(options_in(tmp_path, "--precision", "bf16")).resolver
    assert (resolver.tile_size, resolver.precision) == (None, "bf16")


def test_a_scale_that_was_not_trained_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "run")
    assert load_model(options_in(tmp_path, "--sampling_times", "1")).scale == 2
    with pytest.raises(UserError, match=r"enlarges 2 times, got --sampling_times 3 \(8 times\): "):
        load_model(options_in(tmp_path, "--sampling_times", "3"))


def test_nothing_trained_yet(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing has been trained yet in .*bash run\.sh"):
        load_model(options_in(tmp_path, "--sampling_times", "1"))


# ---- windows ----


def test_windows_come_with_the_checkpoint() -> None:
    assert choose_test_windows(loaded(POLICY), evaluation_options()) == POLICY


def test_windows_by_flag_replace_their_domain_alone() -> None:
    options = evaluation_options("--windows", "clinical=-900:300")
    policy = choose_test_windows(loaded(POLICY), options)
    assert policy.clinical == IntensityWindow(-900, 300)
    assert policy.micro == POLICY.micro
    micro = ("--method", "microCTsmallpatchtest")
    options = evaluation_options(*micro, "--windows", "micro=0:255")
    policy = choose_test_windows(loaded(POLICY), options)
    assert (policy.clinical, policy.micro) == (POLICY.clinical, IntensityWindow(0, 255))


def test_automatic_windows_belong_to_training() -> None:
    with pytest.raises(UserError, match=r"give clinical=LOW:HIGH here"):
        choose_test_windows(loaded(POLICY), evaluation_options("--windows", "clinical=auto"))


def test_normalization_can_be_overridden() -> None:
    options = evaluation_options("--normalization", "minmax")
    assert choose_test_windows(loaded(POLICY), options).normalization == "minmax"


def test_windows_without_effect_are_refused() -> None:
    minmax = WindowPolicy("minmax", CLINICAL_WINDOW, CLINICAL_WINDOW)
    words = ("--windows", "clinical=0:1")
    with pytest.raises(UserError, match="--windows has no effect: leave it out or give --norm"):
        choose_test_windows(loaded(minmax), evaluation_options(*words))
    options = evaluation_options(*words, "--normalization", "window")
    assert choose_test_windows(loaded(minmax), options).clinical == IntensityWindow(0, 1)


def test_bare_weights_are_normalised_as_the_code_that_wrote_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert choose_test_windows(loaded(None), evaluation_options()).normalization == "minmax"
    note = "net.pt states no intensity windows: using minmax normalization\n"
    assert capsys.readouterr().out == note
    options = evaluation_options("--windows", "clinical=-900:300")
    policy = choose_test_windows(loaded(None), options)
    assert (policy.normalization, policy.clinical) == ("window", IntensityWindow(-900, 300))


# ---- inputs and results ----


@pytest.mark.parametrize("domain", ["clinical", "micro"])
def test_without_input_the_held_back_phantom_is_used(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    domain: str,
) -> None:
    held_back = {
        name: write_case(tmp_path / f"{name}_test", name, (8, 8, 1)).parent
        for name in ("clinical", "micro")
    }
    write_case(tmp_path / "trained_on", "seen", (8, 8, 1))

    def generate(folder: Path, scale: int, progress: Any) -> PhantomPaths:
        assert folder == Path("datasets/phantom/x4")
        seen = tmp_path / "trained_on"
        return PhantomPaths(folder, seen, seen, held_back["clinical"], held_back["micro"])

    monkeypatch.setattr(methods.loading, "generate_phantom", generate)
    (path,) = input_paths(evaluation_options(), 4, domain)
    assert path == held_back[domain] / f"{domain}.nii.gz"
    assert "no --input given: using the phantom's held-back volume" in capsys.readouterr().out


def test_input_names_volumes(tmp_path: Path) -> None:
    first = write_case(tmp_path, "a", (8, 8, 1))
    second = write_case(tmp_path, "b", (8, 8, 1))
    options = evaluation_options("--input", str(tmp_path))
    assert input_paths(options, 2, "clinical") == [first, second]


def test_several_cases_get_a_folder_each() -> None:
    paths = [Path("x/a.nii"), Path("y/b.nii.gz")]
    assert result_folders(paths[:1], "out") == [Path("out")]
    assert result_folders(paths, "out") == [Path("out/a"), Path("out/b")]


def test_two_inputs_of_one_case_name_are_refused() -> None:
    paths = [Path("x/a.nii"), Path("y/b.nii"), Path("z/a.nii.gz")]
    message = r"z/a\.nii\.gz and x/a\.nii are both case a: rename one or run them apart"
    with pytest.raises(UserError, match=message):
        result_folders(paths, "out")


def test_results_are_not_replaced_without_a_word(tmp_path: Path) -> None:
    there, absent = tmp_path / "SR.nii.gz", tmp_path / "preview.png"
    refuse_existing([there, absent], overwrite=False)
    there.touch()
    with pytest.raises(UserError, match=r"SR\.nii\.gz exists already: --overwrite replaces it"):
        refuse_existing([absent, there], overwrite=False)
    refuse_existing([absent, there], overwrite=True)


def test_the_resolver_runs_where_it_is_asked_to(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "run")
    assert load_model(options_in(tmp_path)).resolver.device == torch.device("cpu")
    count = torch.cuda.device_count()
    options = options_in(tmp_path)
    options.gpu_ids = str(count)
    with pytest.raises(UserError, match=f"--gpu_ids names GPU {count}"):
        load_model(options)


def test_a_window_of_the_domain_that_is_not_tested_is_refused() -> None:
    micro = ("--method", "microCTsmallpatchtest")
    for words in (("--windows", "micro=0:255"), (*micro, "--windows", "clinical=-900:400")):
        with pytest.raises(UserError, match="has no effect with --method"):
            choose_test_windows(loaded(None), evaluation_options(*words))
    options = evaluation_options(*micro, "--windows", "micro=0:255")
    assert choose_test_windows(loaded(None), options).micro == IntensityWindow(0, 255)


def test_a_model_of_the_public_setting_knows_no_micro_window() -> None:
    public = replace(loaded(POLICY), options={"dataset_mode": "public_2D"})
    with pytest.raises(UserError, match="states no window for micro-CT: give --windows micro="):
        choose_test_windows(public, evaluation_options("--method", "microCTsmallpatchtest"))
    assert choose_test_windows(public, evaluation_options()).clinical == POLICY.clinical


def test_pooled_statistics_run_in_torch(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "run")
    assert load_model(options_in(tmp_path, "--norm_scope", "volume")).resolver.backend == "torch"
    with pytest.raises(UserError, match="--backend openvino cannot take --norm_scope volume"):
        load_model(options_in(tmp_path, "--norm_scope", "volume", "--backend", "openvino"))


def test_an_input_is_never_written_over(tmp_path: Path) -> None:
    scan = tmp_path / "clinical.nii.gz"
    scan.touch()
    other = tmp_path / "sub" / ".." / "clinical.nii.gz"
    (tmp_path / "sub").mkdir()
    for output in (scan, other):
        with pytest.raises(UserError, match="is an input of this run: give another --results_dir"):
            refuse_own_inputs([tmp_path / "SR.nii.gz", output], [scan], [str(scan)], "out")
    refuse_own_inputs([tmp_path / "SR.nii.gz"], [scan], [str(scan)], str(tmp_path))
    refuse_own_inputs([tmp_path / "SR.nii.gz"], [scan], None, str(tmp_path))


def test_results_must_not_become_inputs(tmp_path: Path) -> None:
    scans = [tmp_path / "in" / "a.nii", tmp_path / "in" / "b.nii"]
    (tmp_path / "in").mkdir()
    words = [str(tmp_path / "in")]
    for inside in ("in", "in/results"):
        with pytest.raises(UserError, match="lies in the input folder"):
            refuse_own_inputs([], scans, words, str(tmp_path / inside))
    refuse_own_inputs([], scans, words, str(tmp_path / "in_results"))


@pytest.mark.parametrize(("value", "lines"), [(0, 0), (20000, 1)])
def test_a_window_that_misses_the_volume_is_told(
    capsys: pytest.CaptureFixture[str], value: int, lines: int
) -> None:
    array = np.full((40, 5, 5), value, dtype=np.int16)
    array[:, 0, 0] = 0
    warn_if_outside(Volume(array, np.eye(4), "bone.nii"), CLINICAL_WINDOW)
    err = capsys.readouterr().err
    assert (
        err.count("\n") == lines == err.count("96 % of bone.nii lie outside the intensity window")
    )
