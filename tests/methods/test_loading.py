from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from method_helpers import POLICY
from option_helpers import evaluation_options
from training_helpers import write_checkpoint

import methods.loading
from data.windows import CLINICAL_WINDOW, IntensityWindow, WindowPolicy
from methods.loading import choose_test_windows, load_model, norm_pixels, trained_or_shipped
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
        load_model(options_in(tmp_path, "--sampling_times", "4"))


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


def test_weights_of_the_public_setting_expect_zero_to_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    policy = choose_test_windows(loaded(None), evaluation_options("--normalization", "public"))
    assert policy.normalization == "window"
    assert policy.clinical == replace(CLINICAL_WINDOW, unit_low=0.0)
    assert "states no intensity windows: using public normalization" in capsys.readouterr().out
    words = ("--normalization", "public", "--windows", "clinical=-900:300")
    policy = choose_test_windows(loaded(None), evaluation_options(*words))
    assert policy.clinical == IntensityWindow(-900, 300, 0.0)
