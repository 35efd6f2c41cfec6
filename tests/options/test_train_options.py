from __future__ import annotations

import json
from pathlib import Path

import pytest
from option_helpers import (
    ROOT,
    option_names,
    options_read_in,
    refusal,
    sources,
    train_options,
)

from options import TrainOptions
from options.base_options import given_names
from options.train_checks import DEPENDENT_OPTIONS, START_OPTIONS
from options.train_options import PER_CALL_OPTIONS, opposite

# The names that users of the original code know, and those that this project adds.
KNOWN_NAMES = (
    "name suffix gpu_ids checkpoints_dir model ngf ndf netD n_layers_D norm init_type init_gain "
    "dataset_mode serial_batches num_threads batch_size max_dataset_size no_flip epoch load_iter "
    "clinical2micronetG micro2clinicalnetG sampling_times clinical_patch_size micro_patch_size "
    "clinical_folder micro_folder all_clinical_paths all_micro_paths maskdatafolder batch_num "
    "display_freq display_id display_server display_env display_port display_ncols "
    "update_html_freq print_freq no_html save_latest_freq save_epoch_freq save_by_iter "
    "continue_train epoch_count niter niter_decay lr beta1 gan_mode pool_size lr_policy "
    "lr_decay_iters lambda_G_A lambda_G_B lambda_A lambda_B lambda_identity "
    "lambda_downsample_loss lambda_upsample_loss lambda_clinical_ssim lambda_micro_ssim "
    "slices seed preset windows debug normalization micro_mix degradation micro_spacing precision "
    "keep overwrite engine save_every_minutes"
)

# Read while parsing, or from the words themselves; each has a test of its effect.
READ_ELSEWHERE = {
    "suffix": "test_suffix_takes_values_of_options",
    "debug": "tests/util/test_errors.py",
    "from_scratch": "tests/options/test_presets.py",
}


@pytest.mark.parametrize("name", KNOWN_NAMES.split())
def test_known_names_are_there(name: str) -> None:
    assert name in option_names(TrainOptions)


def test_no_option_is_without_effect() -> None:
    """Each is read by the code behind train.py, not only declared and checked."""
    read = options_read_in(sources("train.py", "training", "models", "util", "data"))
    assert option_names(TrainOptions) - read - READ_ELSEWHERE.keys() == set()


def test_the_test_for_idle_options_can_fail(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("x = options.lr + other.ngf + o.ndf + self.options.beta1\n")
    assert options_read_in([tmp_path / "code.py"]) == {"lr", "ndf", "beta1"}


def test_debug_is_read_from_the_words() -> None:
    assert '"--debug" in arguments' in (ROOT / "util" / "errors.py").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--clinical_patch_size 32 --micro_patch_size 255", "expected clinical_patch_size * 2^"),
        ("--clinical_patch_size 32 --micro_patch_size 128", "32 * 8 = 256"),
        ("--preset paper --micro_patch_size 255", "31 * 8 = 248"),
        ("--preset paper --micro_patch_size 3", "1 * 8 = 8"),
        (
            "--preset paper --clinical_patch_size 20",
            "of at least 32 for the generators' padding",
        ),
        ("--clinical_patch_size 36", "take 40"),
        ("--preset paper --sampling_times 4 --clinical_patch_size 32", "of at least 64"),
        ("--from_scratch --sampling_times 1 --clinical_patch_size 16", "of at least 24"),
        ("--netD n_layers --n_layers_D 4 --clinical_patch_size 32", "of at least 48"),
        ("--sampling_times 5", "invalid choice: 5"),
        ("--model medical_cycle_ganx4 --sampling_times 3", "leave it out or take --model"),
        ("--ngf 12", "expected a multiple of the scale 8"),
        ("--ssim_data_range 0", "expected 2 (or 1 as published)"),
        ("--epoch_count 9 --niter 4 --niter_decay 4", "training ends at epoch 8"),
        ("--dataset_mode public_2D --micro_folder m", "leave the micro-CT paths out"),
        ("--dataset_mode public_2D --all_micro_paths m", "leave the micro-CT paths out"),
        ("--suffix {nothing}", "cannot be filled in ('nothing'): expected names of options"),
        ("--suffix {0}", "cannot be filled in"),
        ("--suffix {", "cannot be filled in"),
        ("--suffix {lr.foo}", "cannot be filled in"),
        ("--suffix {lr[0]}", "cannot be filled in"),
        (f"--name {'n' * 300}", "--name has 300 letters, expected 200 at the most"),
        ("--beta1 1", "at 1 Adam never moves"),
        ("--precision fp16", "train in bf16, or in tf32 or fp32"),
        ("--init_gain 0", "expected a number above 0"),
        ("--num_threads 100000", "expected 256 at the most"),
        ("--name a/b", "expected a plain folder name"),
        ("--name ..", "expected a plain folder name"),
        ("--preset paper --n_layers_D 4", "without --netD n_layers"),
        ("--preset best --texture_noise 16", "give both, such as 1 and 16, or neither"),
        ("--preset best --lambda_texture 1", "give both, such as 1 and 16, or neither"),
        ("--preset texture --norm instance", "expected --norm none"),
        ("--preset texture --val_slices -2:", "leaves as it is: leave --val_... out"),
        (
            "--preset texture --sampling_times 1 --netD pixel --clinical_patch_size 4",
            "--micro_patch_size is 8, expected at least 16",
        ),
        ("--preset paper --pair_blur 2", "--lambda_lattice 0, --lambda_texture 0: leave it out"),
        ("--preset paper --teacher a.pt", "--teacher has no effect with --lambda_pair 0"),
        ("--display_port 8098", "which --display_id 1 turns on"),
        ("--display_freq 5", "which --display_id 1 turns on"),
        ("--lr_decay_iters 4", "without --lr_policy step"),
        ("--dataset_mode public_2D --micro_mix 0.1", "without --dataset_mode unpaired"),
        ("--normalization minmax --windows micro=0:9", "without --normalization window"),
        ("--preset paper_exact --windows micro=0:9", "without --normalization window"),
        ("--epoch 3", "without --continue_train: add it or leave --epoch out"),
        ("--load_iter 3", "without --continue_train: add it or leave --load_iter out"),
        ("--continue_train --overwrite", "give one of them"),
        ("--continue_train --suffix _b", "give the whole name by --name"),
        ("--preset paper --scanner_noise 0 0.1", "without --scanner random"),
        ("--preset best --pair_blur 2", "without --scanner fixed"),
        ("--scanner random --scanner_blur 2", "the lowest and the highest value"),
        ("--scanner random --scanner_blur 3 2", "--scanner_blur is 3 2, expected the lowest"),
        ("--scanner random --scanner_pixel 0 2", "expected more, such as 0.8"),
        ("--scanner auto --scanner_blur 0 2", "without --scanner random"),
        ("--scanner fixed --scanner_calibration 0", "without --scanner random or auto"),
        ("--scanner auto --dataset_mode public_2D", "got --dataset_mode public_2D"),
        ("--scanner auto --normalization minmax", "take --normalization window"),
        ("--clinical_as_micro 0.5 --serial_batches", "leave one of them out"),
        ("--dataset_mode public_2D --clinical_as_micro 0.5", "without --dataset_mode unpaired"),
        ("--scanner random --scanner_noise -1 2", "expected a number of at least 0"),
        ("--preset paper --scanner random --micro_mix 0", "--scanner has no effect without shrunk"),
        ("--preset paper --scanner random --micro_mix 0 --scanner_blur 0 2", "has no effect"),
        (
            "--preset best --dataset_mode paired --all_clinical_paths a --all_micro_paths b "
            "--scanner_pixel 1 2",
            "--scanner_pixel has no effect with --dataset_mode paired",
        ),
        (
            "--preset best --dataset_mode public_2D --scanner_thickness 0 1",
            "--scanner_thickness has no effect with --dataset_mode public_2D",
        ),
        ("--beta1 1.5", "expected a number from 0 to 1"),
        ("--lr -1", "expected a number of at least 0"),
        ("--lambda_A -0.5", "expected a number of at least 0"),
        ("--batch_size 0", "expected a whole number of at least 1"),
        ("--niter 0", "expected a whole number of at least 1"),
        ("--gan_mode hinge", "invalid choice: 'hinge'"),
    ],
)
def test_contradictions_are_refused_with_the_fix(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    words: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refusal(capsys, "train.py", *words.split())


@pytest.mark.parametrize(
    ("words", "sizes"),
    [
        ("", (32, 256)),
        ("--model medical_cycle_ganx4", (32, 128)),
        ("--sampling_times 1", (32, 64)),
        ("--sampling_times 4", (64, 1024)),
        ("--micro_patch_size 512", (64, 512)),
        ("--clinical_patch_size 40", (40, 320)),
        ("--dataset_mode public_2D --model medical_cycle_ganx4", (48, 192)),
        ("--netD pixel --lambda_identity 0 --clinical_patch_size 8", (8, 64)),
    ],
)
def test_patch_sizes_follow_from_what_is_given(words: str, sizes: tuple[int, int]) -> None:
    options = train_options("--preset", "paper", *words.split())
    assert (options.clinical_patch_size, options.micro_patch_size) == sizes


def test_a_micro_patch_size_brings_the_clinical_one_of_the_demo_too() -> None:
    options = train_options("--preset", "demo", "--micro_patch_size", "192")
    assert (options.clinical_patch_size, options.micro_patch_size) == (24, 192)
    options = train_options("--preset", "demo")
    assert (options.clinical_patch_size, options.micro_patch_size) == (16, 128)
    # Small patches are for its own discriminator.
    assert train_options("--preset", "demo", "--netD", "basic").clinical_patch_size == 32


@pytest.mark.parametrize(("netD", "smallest"), [("basic", 24), ("pixel", 8)])
def test_the_smallest_patch_allowed_is_the_smallest_that_trains(netD: str, smallest: int) -> None:
    from training_helpers import tiny_batch, tiny_model

    model = tiny_model("--netD", netD, "--clinical_patch_size", str(smallest))
    whole = tiny_batch()
    model.set_input(
        {
            "clinical": whole["clinical"][..., :smallest, :smallest],
            "micro": whole["micro"][..., : 2 * smallest, : 2 * smallest],
        }
    )
    model.optimize_parameters()
    assert all(value.isfinite() for value in model.losses.values())
    with pytest.raises(SystemExit):
        train_options(
            "--preset", "paper", "--sampling_times", "1", "--netD", netD,
            "--clinical_patch_size", str(smallest - 4),
        )  # fmt: skip


def test_preset_follows_the_machine_and_the_flag_wins() -> None:
    assert train_options(gpus=1).preset == "adapt"
    assert train_options(gpus=0).preset == "demo"
    assert train_options("--gpu_ids", "-1", gpus=1).preset == "demo"
    assert train_options("--preset", "paper", gpus=0).ngf == 64
    assert train_options("--preset", "demo", "--ngf", "32").ngf == 32
    assert train_options("--preset=demo", "--ngf=32", "--niter=7").niter == 7


def test_gpus_are_counted_only_for_a_good_command_line() -> None:
    def counted() -> int:
        raise AssertionError("GPUs were counted, which loads torch")

    for words in (["--help"], ["--lr", "fast"], ["--no_such_flag"]):
        with pytest.raises(SystemExit):
            TrainOptions().parse(words, counted)
    assert TrainOptions().parse(["--preset", "demo"], counted)[0].preset == "demo"


def test_the_4x_model_brings_its_loss_weights_and_flags_win() -> None:
    model = ("--model", "medical_cycle_ganx4")
    options = train_options(*model)
    weights = (options.lambda_downsample_loss, options.lambda_upsample_loss)
    assert (options.sampling_times, *weights) == (2, 0.7, 0.3)
    options = train_options(*model, "--lambda_upsample_loss", "1", "--sampling_times", "2")
    assert (options.lambda_downsample_loss, options.lambda_upsample_loss) == (0.7, 1.0)
    assert train_options("--sampling_times", "2").lambda_downsample_loss == 1.0


def test_names_by_default_and_with_a_suffix() -> None:
    assert train_options().name == "medical_cycle_gan_x8"
    assert train_options("--model", "medical_cycle_ganx4").name == "medical_cycle_ganx4_x4"
    assert train_options("--name", "mine").name == "mine"


def test_suffix_takes_values_of_options() -> None:
    options = train_options("--name", "mine", "--ngf", "32", "--suffix", "_ngf{ngf}_{gan_mode}")
    assert options.name == "mine_ngf32_lsgan"
    assert options.suffix == ""


# ---- going on with a run ----


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where run "kept" was trained with flags of its own, and was the last."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "checkpoints" / "kept"
    folder.mkdir(parents=True)
    options = train_options(
        "--name", "kept", "--preset", "demo", "--ngf", "24", "--niter", "3", "--seed", "5",
        "--windows", "micro=0:255", "--micro_spacing", "0.1", "--sampling_times", "1",
        "--clinical_patch_size", "24",
    )  # fmt: skip
    (folder / "options.json").write_text(json.dumps(vars(options)), encoding="utf-8")
    (tmp_path / "checkpoints" / "last_experiment.txt").write_text("kept\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("words", [(), ("--name", "kept")])
def test_continue_train_takes_the_stored_options(stored: Path, words: tuple[str, ...]) -> None:
    options = train_options("--continue_train", *words, gpus=1)
    kept = json.loads((stored / "options.json").read_text(encoding="utf-8"))
    for name, value in kept.items():
        if name not in ("continue_train", "micro_spacing"):
            assert getattr(options, name) == value, name
    assert options.micro_spacing == (0.1, 0.1, 0.1)
    assert options.continue_train
    assert options.preset == "demo"


def test_a_run_whose_pairs_were_judged_otherwise_asks_for_their_weight(
    stored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = stored / "options.json"
    words = json.loads(path.read_text())
    old = {k: v for k, v in words.items() if k not in ("lambda_stability", "lambda_lattice")}
    path.write_text(json.dumps({**old, "lambda_pair": 1.0}))
    with pytest.raises(SystemExit):
        train_options("--continue_train")
    assert "absolute difference (--lambda_pair 1.0), now" in capsys.readouterr().err
    assert train_options("--continue_train", "--lambda_pair", "5").lambda_pair == 5
    path.write_text(json.dumps({**old, "lambda_pair": 0.0}))
    assert train_options("--continue_train").lambda_pair == 0


def test_a_run_that_knew_no_random_scanner_goes_on_with_a_fixed_one(stored: Path) -> None:
    path = next(stored.rglob("options.json"))
    words = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in words.items() if "scanner" not in k}))
    assert train_options("--continue_train").scanner == "fixed"


def test_continue_train_takes_flags_before_stored_options(stored: Path) -> None:
    options = train_options("--continue_train", "--niter", "9", "--lr=0.5", "--print_freq", "1")
    assert (options.niter, options.lr, options.print_freq, options.ngf) == (9, 0.5, 1, 24)


def test_options_of_one_call_are_not_taken_from_the_store(stored: Path) -> None:
    path = stored / "options.json"
    kept = json.loads(path.read_text(encoding="utf-8"))
    kept |= {"gpu_ids": "0,1", "epoch": "4", "load_iter": 7, "debug": True, "overwrite": True}
    path.write_text(json.dumps(kept), encoding="utf-8")
    options = train_options("--continue_train")
    found = (options.gpu_ids, options.epoch, options.load_iter, options.debug, options.overwrite)
    assert found == ("all", "latest", 0, False, False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--preset paper", "--preset is paper, but the run that goes on"),
        ("--windows micro=0:99", "was started with ['micro=0:255']: leave --windows out"),
        ("--normalization minmax", "leave --normalization out"),
        ("--init_type xavier", "leave --init_type out"),
        ("--init_gain 0.5", "leave --init_gain out"),
        ("--epoch_count 2", "leave --epoch_count out"),
        ("--n_layers_D 4", "without --netD n_layers"),
        ("--epoch 0", "expected latest, best or a number from 1"),
        ("--epoch last", "expected latest, best or a number from 1"),
    ],
)
def test_flags_without_effect_on_a_resumed_run_are_refused(
    capsys: pytest.CaptureFixture[str], stored: Path, words: str, message: str
) -> None:
    assert message in refusal(capsys, "train.py", "--continue_train", *words.split())


@pytest.mark.parametrize(
    "words",
    ["--clinical_patch_size 32", "--micro_patch_size 64"],
)
def test_of_two_patch_sizes_the_other_follows(stored: Path, words: str) -> None:
    options = train_options("--continue_train", *words.split())
    assert (options.clinical_patch_size, options.micro_patch_size) == (32, 64)


def test_everything_that_was_given_can_be_taken_back(stored: Path) -> None:
    """What the store holds wins over defaults, so each option needs a word for its default."""
    parser = TrainOptions().build()
    actions = {action.dest: action for action in parser._actions}
    lasting = set(actions) - PER_CALL_OPTIONS - set(START_OPTIONS) - {"name", "help", "list"}
    flags = {name for name in lasting if actions[name].const is not None}
    for name in sorted(flags):
        back = f"--{opposite(name)}"
        assert getattr(parser.parse_args([f"--{name}"]), name) is True
        assert getattr(parser.parse_args([f"--{name}", back]), name) is False
        assert given_names(parser, [back]) == {name}
    path = stored / "options.json"
    kept = json.loads(path.read_text(encoding="utf-8"))
    given = {
        "patience": 3, "clip_gradient": 5.0, "val_slices": "-2:", "slices": ":-2", "no_flip": True,
        "tensorboard": True, "micro_axes": "z", "max_dataset_size": 9, "val_micro_paths": ["a.nii"],
        "maskdatafolder": "masks", "save_every_minutes": 5.0, "match_spacing": True,
    }  # fmt: skip
    path.write_text(json.dumps({**kept, **given}), encoding="utf-8")
    assert train_options("--continue_train").patience == 3
    words = [
        word
        for name, value in given.items()
        for word in ([f"--{opposite(name)}"] if value is True else [f"--{name}", "none"])
    ]
    options = train_options("--continue_train", *words)
    for name in given:
        assert getattr(options, name) == parser.get_default(name), name


def test_no_default_of_none_is_without_a_word(stored: Path) -> None:
    parser = TrainOptions().build()
    for action in parser._actions:
        if action.default is None and action.dest not in PER_CALL_OPTIONS | {"name", "help"}:
            options = train_options(f"--{action.dest}", "none", "--preset", "demo")
            derived = {"clinical_patch_size", "micro_patch_size", "init_weights"}
            assert getattr(options, action.dest) is None or action.dest in derived


def test_start_options_may_be_repeated_as_they_were(stored: Path) -> None:
    words = ("--preset", "demo", "--windows", "micro=0:255", "--init_type", "normal")
    assert train_options("--continue_train", *words).ngf == 24
    assert set(START_OPTIONS) <= option_names(TrainOptions)
    for name, (other, _) in DEPENDENT_OPTIONS.items():
        assert {name, other} <= option_names(TrainOptions)


def test_nothing_to_go_on_with(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message = refusal(capsys, "train.py", "--continue_train")
    assert "nothing has been trained in checkpoints: give --name" in message
    # Weights of the original code come without stored options: flags and presets count.
    assert train_options("--continue_train", "--name", "old", "--ngf", "32").ngf == 32
