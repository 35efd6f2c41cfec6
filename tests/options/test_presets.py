from __future__ import annotations

import pytest
from option_helpers import option_names, train_options

from options import TrainOptions
from options.presets import (
    DEMO_FROM_SCRATCH,
    FROM_SCRATCH,
    PAPER,
    PAPER_EXACT,
    PRESETS,
    X4_DEFAULTS,
)


def test_presets_hold_options_only() -> None:
    for values in (*PRESETS.values(), X4_DEFAULTS):
        assert values.keys() <= option_names(TrainOptions)


def test_the_published_preset_is_the_paper_and_the_parsers_default() -> None:
    """docs/method.md: 64 channels, batches of 4, lr 1e-5, 100 + 100 epochs, 2,000 patches."""
    assert {
        "ngf": 64,
        "ndf": 64,
        "batch_size": 4,
        "batch_num": 2000,
        "niter": 100,
        "niter_decay": 100,
        "lr": 1e-5,
    }.items() <= PAPER.items()
    parser = TrainOptions().build()
    for name, value in PAPER.items():
        assert parser.get_default(name) == value, name


def test_published_values_that_are_in_no_preset() -> None:
    options = train_options("--preset", "paper")
    expected = {
        "sampling_times": 3,
        "clinical_patch_size": 32,
        "micro_patch_size": 256,
        "beta1": 0.5,
        "pool_size": 50,
        "gan_mode": "lsgan",
        "norm": "instance",
        "init_type": "normal",
        "init_gain": 0.02,
        "micro_mix": 0.25,
        "lambda_identity": 0.2,
        "lr_policy": "linear",
    }
    assert {name: getattr(options, name) for name in expected} == expected
    weights = ["G_A", "G_B", "A", "B", "downsample_loss", "upsample_loss"]
    weights += ["clinical_ssim", "micro_ssim"]
    assert all(getattr(options, f"lambda_{name}") == 1.0 for name in weights)


def test_paper_exact_restores_every_published_fault() -> None:
    faithful = PAPER_EXACT.items() - PAPER.items()
    parser = TrainOptions().build()
    for name, value in faithful:
        assert parser.get_default(name) != value, f"{name} is no deviation"
    assert {name for name, _ in faithful} == {
        "normalization",
        "lr_policy",
        "degradation",
        "serial_batches",
        "fixed_patches",
        "ssim_data_range",
    }


def test_the_demo_is_smaller_in_everything_that_costs_time() -> None:
    for name in ("ngf", "ndf", "batch_size", "batch_num", "niter", "niter_decay"):
        smaller, published = DEMO_FROM_SCRATCH.get(name, PAPER[name]), PAPER[name]
        assert isinstance(smaller, int)
        assert isinstance(published, int)
        assert smaller <= published


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("words", ["", "--model medical_cycle_ganx4", "--sampling_times 4"])
def test_every_preset_is_taken_as_it_stands(preset: str, words: str) -> None:
    options = train_options("--preset", preset, *words.split())
    fits = "--sampling_times" not in words  # no weights of 16x come with the project
    for name, value in (PRESETS if fits else PRESETS | FROM_SCRATCH)[preset].items():
        assert getattr(options, name) == value, name


@pytest.mark.parametrize("preset", FROM_SCRATCH)
@pytest.mark.parametrize(
    ("more", "weights"),
    [("", "sr_x8"), ("--dataset_mode public_2D", "sr_x4"), ("--sampling_times 1", "sr_x2")],
)
def test_these_start_from_the_weights_that_come_with_the_project(
    preset: str, more: str, weights: str
) -> None:
    options = train_options("--preset", preset, *more.split())
    assert options.init_weights.endswith(f"weights/{weights}.safetensors")
    assert (options.ngf, options.norm, options.skip) == (64, "none", "cubic")


@pytest.mark.parametrize("preset", FROM_SCRATCH)
@pytest.mark.parametrize("more", ["--from_scratch", "--ngf 32", "--sampling_times 4"])
def test_these_start_from_random_weights_where_the_others_do_not_fit(
    preset: str, more: str
) -> None:
    options = train_options("--preset", preset, *more.split())
    assert options.init_weights is None
    assert options.lr == FROM_SCRATCH[preset]["lr"]


def test_texture_alone_is_taught_where_the_weights_fit() -> None:
    for words, taught in (((), {"texture"}), (("--from_scratch",), {"texture", "pair"})):
        options = train_options("--preset", "texture", *words)
        weights = {name for name, value in vars(options).items() if name[:7] == "lambda_" and value}
        assert {f"lambda_{name}" for name in taught} <= weights
        assert (len(weights) == 1) == (not words)


def test_naming_the_networks_own_value_keeps_its_weights() -> None:
    words = ("--ngf", "64", "--norm", "none", "--skip", "cubic")
    assert train_options("--preset", "adapt", *words).init_weights.endswith("sr_x8.safetensors")
    assert train_options("--preset", "demo", *words).lambda_pair > 0


@pytest.mark.parametrize("more", ["", "--ngf 16", "--sampling_times 4"])
def test_weights_that_are_named_win_whatever_their_network(more: str) -> None:
    for preset in FROM_SCRATCH:
        options = train_options("--preset", preset, "--init_weights", "my.pt", *more.split())
        assert options.init_weights == "my.pt"
        assert options.lr == PRESETS[preset]["lr"]
        assert options.lambda_pair == PRESETS[preset]["lambda_pair"]


def test_other_presets_know_no_start() -> None:
    with pytest.raises(SystemExit):
        train_options("--preset", "paper", "--from_scratch")


def test_the_demo_has_the_papers_losses_at_work() -> None:
    options = train_options("--preset", "demo")
    assert min(options.lambda_G_A, options.lambda_A, options.lambda_downsample_loss) > 0


def test_the_papers_presets_have_one_scanner_and_the_best_one_many() -> None:
    scanners = {name: train_options("--preset", name).scanner for name in PRESETS}
    assert scanners["paper"] == scanners["paper_exact"] == "fixed"
    assert scanners["best"] == scanners["adapt"] == scanners["demo"] == "random"


def test_the_best_preset_trains_one_generator_at_4x_too() -> None:
    """The published 4x weights belong to losses that it does not have."""
    for words in ((), ("--model", "medical_cycle_ganx4"), ("--dataset_mode", "public_2D")):
        options = train_options("--preset", "best", *words)
        weights = {name for name, value in vars(options).items() if name[:7] == "lambda_" and value}
        assert weights == {"lambda_pair", "lambda_stability", "lambda_lattice"}
    assert train_options("--preset", "best", "--dataset_mode", "public_2D").sampling_times == 2


@pytest.mark.parametrize("preset", PRESETS)
def test_a_flag_wins_over_its_preset(preset: str) -> None:
    assert train_options("--preset", preset, "--lr", "0.125", "--batch_size", "3").lr == 0.125
