from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_helpers import tiny_batch, tiny_model, tiny_options

from data.patches import noise_if_constant
from data.sampling import item_generator
from models.base_model import residual_blocks
from models.loss_names import LOGGED, LOSSES, MULTI_MODALITY
from models.losses import enlarge_nearest
from models.medical_cycle_gan import MODELS, MedicalCycleGANModel
from models.scanner_model import FixedScanner, RandomScanner
from util.processes import Processes


def test_a_step_reports_every_loss_and_moves_every_network() -> None:
    model = tiny_model()
    before = {
        name: [p.clone() for p in network.parameters()] for name, network in model.networks.items()
    }
    model.set_input(tiny_batch())
    model.optimize_parameters()
    assert set(model.losses) == set(LOGGED)
    for name, network in model.networks.items():
        changed = [
            not torch.equal(old, new)
            for old, new in zip(before[name], network.parameters(), strict=True)
        ]
        assert any(changed), name
    parts = sum(float(model.losses[name]) for name in LOSSES if name not in ("G", "D_A", "D_B"))
    assert float(model.losses["G"]) == pytest.approx(parts, rel=1e-5)


def test_generator_step_leaves_no_gradient_in_the_discriminators() -> None:
    model = tiny_model()
    model.set_input(tiny_batch())
    model.forward()
    model._freeze_discriminators(True)
    model.generator_loss().backward()
    assert all(p.grad is None for p in model.D_A.parameters())
    assert any(p.grad is not None for p in model.G_A.parameters())


def multi_modality(model: MedicalCycleGANModel, fake_B: Tensor, fake_A: Tensor) -> list[float]:
    """downsample, upsample, clinical_ssim, micro_ssim of these generated images."""
    model._images = {"fake_B": fake_B, "fake_A": fake_A}
    losses = model.generator_losses()
    return [float(losses[name][1]()) for name in MULTI_MODALITY]


def test_multi_modality_losses_vanish_where_nothing_changed() -> None:
    model = tiny_model()
    clinical = torch.rand(2, 1, 16, 16) * 2 - 1
    micro = enlarge_nearest(clinical, model.scale)
    model.set_input({"clinical": clinical, "micro": micro})
    assert multi_modality(model, micro, clinical) == pytest.approx([0] * 4, abs=1e-5)
    shifted = multi_modality(model, micro + 0.25, clinical - 0.5)
    assert shifted[:2] == pytest.approx([0.25, 0.5], abs=1e-5)
    assert min(shifted[2:]) > 0.005


def test_every_weight_flag_scales_its_loss() -> None:
    flags = {
        "lambda_G_A": "G_A",
        "lambda_G_B": "G_B",
        "lambda_A": "cycle_A",
        "lambda_B": "cycle_B",
        "lambda_identity": "idt_A",
        "lambda_downsample_loss": "downsample",
        "lambda_upsample_loss": "upsample",
        "lambda_clinical_ssim": "clinical_ssim",
        "lambda_micro_ssim": "micro_ssim",
        "lambda_pair": "pair",
        "lambda_stability": "stability",
        "lambda_lattice": "lattice",
    }
    # A new loss stands above: these are the sums, the other identity, and two that need more.
    assert {*flags.values(), "D_A", "D_B", "G", "idt_B", "texture", "supervised"} == set(LOSSES)
    for flag, name in flags.items():
        values = []
        for weight in ("0.1", "0.3"):
            model = tiny_model(f"--{flag}", weight)
            model.set_input(tiny_batch())
            model.forward()
            model.generator_loss()
            values.append(float(model.losses[name]))
        assert values[1] == pytest.approx(3 * values[0], rel=1e-5), flag


def test_identity_passes_are_left_out_at_weight_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("--lambda_identity", "0")
    networks = []
    run = model.run

    def counted(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
        networks.append(network)
        return run(network, images)

    monkeypatch.setattr(model, "run", counted)
    model.set_input(tiny_batch())
    model.optimize_parameters()
    assert sum(network is model.G_A for network in networks) == 2
    assert float(model.losses["idt_A"]) == 0


NONE = [f"--lambda_{name}=0" for name in (
    "G_A", "G_B", "A", "B", "identity", "downsample_loss", "upsample_loss", "clinical_ssim",
    "micro_ssim",
)]  # fmt: skip


@pytest.mark.parametrize("engine", ["fused", "eager"])
def test_a_teacher_takes_the_place_of_the_truth(engine: str) -> None:
    model = tiny_model(*NONE, "--lambda_pair", "1", "--engine", engine)
    model.set_input(tiny_batch())
    assert float(model.generator_loss()) > 0.01
    model.learn_from(copy.deepcopy(model.G_A))
    model.set_input(tiny_batch())
    assert float(model.generator_loss()) == pytest.approx(0, abs=1e-9)
    teacher = tiny_model(*NONE, "--lambda_pair", "1", "--seed", "4", "--ngf", "8").G_A
    before = copy.deepcopy(teacher.state_dict())
    model.learn_from(teacher)
    model.set_input(tiny_batch())
    model.optimize_parameters()
    assert float(model.losses["pair"]) > 0
    assert all(torch.equal(weight, before[name]) for name, weight in teacher.state_dict().items())


def test_a_teacher_with_batch_norm_is_run_by_its_layers() -> None:
    model = tiny_model(*NONE, "--lambda_pair", "1", "--norm", "none")
    teacher = tiny_model(*NONE, "--lambda_pair", "1", "--norm", "batch", "--seed", "4").G_A
    model.learn_from(teacher)
    images = tiny_batch()["clinical"]
    with torch.no_grad():
        torch.testing.assert_close(model.lesson(images, images), teacher.eval()(images))


@pytest.mark.parametrize("engine", ["fused", "eager"])
def test_texture_is_taught_and_nothing_else(engine: str) -> None:
    words = ("--norm", "none", "--skip", "cubic", "--texture_noise", "3", "--lambda_texture", "1")
    model = tiny_model(*NONE, *words, "--engine", engine)
    before = copy.deepcopy(model.G_A.state_dict())
    model.set_input(tiny_batch())
    for _ in range(2):
        model.optimize_parameters()
    assert float(model.losses["texture"]) == float(model.losses["G"]) > 0
    layers = {name for name in before if name.startswith("texture.")}
    for name, weight in model.G_A.state_dict().items():
        assert torch.equal(weight, before[name]) == (name not in layers), name
    # Beside other losses it reaches no more than those layers either.
    model.optimizers["G"].zero_grad()
    assert set(model.pictures()) == {"real_A", "real_B", "scanned_B", "textured_B"}
    one, other = model.textured(model.real_A)
    assert not torch.equal(one, other)
    (one.sum() + other.sum()).backward()
    reached = {name for name, weight in model.G_A.named_parameters() if weight.grad is not None}
    assert reached == layers
    assert all(weight.requires_grad for weight in model.G_A.parameters())


def test_the_weight_of_texture_scales_its_loss() -> None:
    words = ("--norm", "none", "--skip", "cubic", "--texture_noise", "3", "--lambda_texture")
    values = []
    for weight in ("0.1", "0.3"):
        model = tiny_model(*NONE, *words, weight)
        model.set_input(tiny_batch())
        torch.manual_seed(5)
        values.append(float(model.generator_loss()))
    assert values[1] == pytest.approx(3 * values[0], rel=1e-5)


def test_both_engines_draw_the_same_texture() -> None:
    words = ("--norm", "none", "--skip", "cubic", "--texture_noise", "3", "--lambda_texture", "1")
    found = []
    for engine in ("fused", "eager"):
        model = tiny_model(*NONE, *words, "--engine", engine)
        torch.manual_seed(5)
        found.append(torch.stack(model.textured(tiny_batch()["clinical"])))
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=0)


def test_stability_is_nothing_where_a_mirrored_look_gives_the_mirrored_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model(*NONE, "--lambda_stability", "1")
    model.set_input(tiny_batch())
    monkeypatch.setattr("models.medical_cycle_gan.another_look", lambda images: images.flip(-1))
    monkeypatch.setattr(model, "run", lambda network, images: images)
    assert float(model.generator_loss()) == 0
    monkeypatch.setattr(model, "run", lambda network, images: images.roll(1, -1))
    model.set_input(tiny_batch())
    assert float(model.generator_loss()) > 0.01


@pytest.mark.parametrize(
    ("words", "images", "moving"),
    [
        (("--lambda_pair", "1"), {"scanned_B", "restored_B"}, {"G_A"}),
        (("--lambda_downsample_loss", "1"), {"fake_B"}, {"G_A"}),
        (("--lambda_stability", "1"), {"scanned_B", "restored_B"}, {"G_A"}),
        (("--lambda_lattice", "100"), {"fake_B", "scanned_B", "restored_B"}, {"G_A"}),
        (("--lambda_G_A", "1"), {"fake_B"}, {"G_A", "D_A"}),
        (("--lambda_micro_ssim", "1"), {"fake_A"}, {"G_B"}),
        (("--lambda_B", "1"), {"fake_A", "rec_B"}, {"G_A", "G_B"}),
        (("--dataset_mode", "paired", "--lambda_supervised", "1"), {"fake_B"}, {"G_A"}),
    ],
)
def test_only_what_has_a_weight_is_computed_and_moved(
    words: tuple[str, ...], images: set[str], moving: set[str]
) -> None:
    model = tiny_model(*NONE, *words, "--sampling_times", "1")
    before = {name: copy.deepcopy(network) for name, network in model.networks.items()}
    model.set_input(tiny_batch())
    model.optimize_parameters()
    assert set(model.losses) == set(LOGGED)
    assert set(model.pictures()) - {"real_A", "real_B"} == images
    moved = {
        name
        for name, network in model.networks.items()
        if not torch.equal(
            nn.utils.parameters_to_vector(network.parameters()),
            nn.utils.parameters_to_vector(before[name].parameters()),
        )
    }
    assert moved == moving


class Halving(Processes):
    """Two processes, of which the other one has zeros everywhere."""

    messages: ClassVar[list[list[torch.Tensor]]] = []

    def average(self, tensors: Sequence[torch.Tensor]) -> None:
        self.messages.append(list(tensors))
        with torch.no_grad():
            for tensor in {id(one): one for one in tensors}.values():
                tensor.mul_(0.5)


@pytest.mark.parametrize("words", [(), ("--lambda_G_A", "0", "--lambda_G_B", "0")])
def test_losses_of_all_processes_are_averaged_with_and_without_discriminators(
    words: tuple[str, ...],
) -> None:
    alone = tiny_model(*words)
    alone.set_input(tiny_batch())
    alone.optimize_parameters()
    Halving.messages.clear()
    model = tiny_model(*words)
    model.processes = Halving(0, 2)
    model.set_input(tiny_batch())
    model.optimize_parameters()
    # One message after each backward pass, however few networks there are to move.
    assert len(Halving.messages) == 2
    for name, loss in alone.losses.items():
        same = name in ("learning_rate", "skipped")
        torch.testing.assert_close(model.losses[name], loss if same else loss / 2)
    assert float(model.losses["learning_rate"]) == pytest.approx(model.options.lr)


def test_pseudo_pairs_are_micro_patches_and_their_area_average() -> None:
    words = ("--lambda_pair", "2", "--scanner", "fixed", "--skip", "cubic", "--norm", "none")
    model = tiny_model(*NONE, *words)
    batch = tiny_batch()
    model.set_input(batch)
    model.generator_loss()
    shrunk = torch.nn.functional.avg_pool2d(batch["micro"], 2)
    with torch.no_grad():
        expected = 2 * (model.G_A(shrunk) - batch["micro"]).square().mean()
    assert float(model.losses["pair"]) == pytest.approx(float(expected), rel=1e-5)
    model.scanner = FixedScanner(2, noise=0.5)
    model.set_input(batch)
    model.generator_loss()
    assert float(model.losses["pair"]) > 1.1 * float(expected)


def test_a_random_scanner_sees_the_clinical_patches_that_are_shrunk_ones() -> None:
    model = tiny_model("--scanner", "random", "--scanner_noise", "0.1", "0.1")
    assert isinstance(model.scanner, RandomScanner)
    batch = tiny_batch()
    assert len(batch["clinical"]) == 2
    model.set_input({**batch, "shrunk": torch.tensor([True, False])})
    assert not torch.equal(model.real_A[0], batch["clinical"][0])
    assert torch.equal(model.real_A[1], batch["clinical"][1])
    model.set_input(batch)
    assert torch.equal(model.real_A, batch["clinical"])


def test_shuffles_stay_even_without_norm_only() -> None:
    for norm, even in (("none", True), ("instance", False)):
        model = tiny_model("--norm", norm, "--lr", "0.01")
        model.set_input(tiny_batch())
        model.optimize_parameters()
        layer = model.G_A.upsampling[0]
        assert isinstance(layer, nn.Conv2d)
        sums = layer.weight.detach().sum((-1, -2)).unflatten(0, (-1, 4))
        assert bool((sums.amax(1) - sums.amin(1) < 1e-6).all()) == even


@pytest.mark.parametrize("mode", ["vanilla", "wgangp"])
def test_other_gan_modes_train(mode: str) -> None:
    model = tiny_model("--gan_mode", mode)
    model.set_input(tiny_batch())
    for _ in range(2):
        model.optimize_parameters()
    assert all(bool(torch.isfinite(loss)) for loss in model.losses.values())


def test_bf16_stays_near_fp32() -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        model = tiny_model("--precision", precision)
        model.set_input(tiny_batch())
        model.optimize_parameters()
        losses.append(float(model.losses["G"]))
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert losses[1] != losses[0]


def test_the_4x_model_enlarges_by_nearest_in_idt_b() -> None:
    assert tiny_model().identity_mode == "bilinear"
    small = ("--model", "medical_cycle_ganx4", "--sampling_times", "2")
    assert tiny_model(*small).identity_mode == "nearest"


def test_state_goes_on_bitwise() -> None:
    first, second = tiny_model("--pool_size", "3"), tiny_model("--pool_size", "3", "--seed", "5")
    for step in range(3):
        first.set_input(tiny_batch(step))
        first.optimize_parameters()
    first.end_epoch(1.0)
    second.load_state_dict(copy.deepcopy(first.state_dict()))  # as a file would hand it over
    second.load_pools(copy.deepcopy(first.pools_state()))
    for step in range(3, 6):
        for model in (first, second):
            model.set_input(tiny_batch(step))
            model.optimize_parameters()
        assert {k: float(v) for k, v in first.losses.items()} == {
            k: float(v) for k, v in second.losses.items()
        }
    for name, network in first.networks.items():
        for key, weight in network.state_dict().items():
            assert torch.equal(weight, second.networks[name].state_dict()[key])
    assert first.learning_rate == second.learning_rate


def test_pictures_have_the_right_relative_size() -> None:
    model = tiny_model()
    model.set_input(tiny_batch())
    model.forward()
    shapes = {role: tuple(picture.shape) for role, picture in model.pictures().items()}
    small, large = (32, 32), (64, 64)
    assert shapes == {
        "real_A": small, "fake_B": large, "rec_A": small,
        "real_B": large, "fake_A": small, "rec_B": large,
    }  # fmt: skip


def test_block_count_is_read_off_the_generator_name() -> None:
    assert residual_blocks("sr_resnet_9blocks") == 9
    assert residual_blocks("resnet_6blocks") == 6
    assert sum("conv_block.1.weight" in k for k in tiny_model().G_A.state_dict()) == 9
    six = tiny_model("--clinical2micronetG", "sr_resnet_6blocks")
    assert sum("conv_block.1.weight" in k for k in six.G_A.state_dict()) == 6


def test_noise_keeps_the_gradient_of_an_empty_patch_small() -> None:
    """A constant patch stays constant in every layer, where its gradient explodes."""
    empty = np.full((32, 32), -1.0, dtype=np.float32)
    largest = {}
    for name, patch in (("empty", empty), ("noisy", noise_if_constant(empty, item_generator(0)))):
        model = tiny_model("--engine", "eager")
        model.set_input({**tiny_batch(count=1), "clinical": torch.from_numpy(patch)[None, None]})
        model.forward()
        model.generator_loss().backward()
        parameters = [*model.G_A.parameters(), *model.G_B.parameters()]
        gradients = [p.grad for p in parameters if p.grad is not None]
        largest[name] = max(float(gradient.norm()) for gradient in gradients)
    assert largest["noisy"] < 1e3
    if torch.backends.cpu.get_cpu_capability() != "DEFAULT":
        # Vector instructions round the border unlike the middle, and that difference explodes; one
        # by one, pixels stay equal to the last bit.
        assert not largest["empty"] < 1e5  # also true of NaN


def test_idt_a_on_a_crop_judges_that_crop_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("--identity_crop", "16")
    model.set_input(tiny_batch())
    sizes: list[tuple[int, ...]] = []
    run = model.run

    def watched(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
        if network is model.G_A:
            sizes.append(tuple(images.shape[-2:]))
        return run(network, images)

    monkeypatch.setattr(model, "run", watched)
    model.optimize_parameters()
    assert sizes == [(32, 32), (32, 32), (16, 16)]  # real_A, fake_A, and the crop of real_B
    assert float(model.losses["idt_A"]) > 0


def test_a_crop_as_large_as_the_patch_changes_nothing() -> None:
    found = []
    for words in ((), ("--identity_crop", "64")):
        model = tiny_model(*words)
        model.set_input(tiny_batch())
        model.optimize_parameters()
        found.append(float(model.losses["idt_A"]))
    assert found[0] == found[1]


def test_the_identity_losses_come_every_so_many_steps_and_weigh_as_much_in_all() -> None:
    every, third = tiny_model(), tiny_model("--identity_every", "3")
    found = []
    for step in range(4):
        for model in (every, third):
            model.set_input(tiny_batch(step))
            model.optimize_parameters()
        found.append(float(third.losses["idt_A"]))
        if step == 0:
            for name in ("idt_A", "idt_B"):
                assert float(third.losses[name]) == pytest.approx(3 * float(every.losses[name]))
    assert found[1] == found[2] == 0
    assert found[3] > 0


def test_clipping_holds_the_gradients_norm() -> None:
    free, held = tiny_model(), tiny_model("--clip_gradient", "1e-3")
    for model in (free, held):
        model.set_input(tiny_batch())
        model.optimize_parameters()
    assert float(held.losses["norm_G"]) == float(free.losses["norm_G"]) > 1e-3
    for name in ("G", "D"):
        gradients = [
            p.grad
            for g in held.optimizers[name].param_groups
            for p in g["params"]
            if p.grad is not None
        ]
        norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        assert float(norm) == pytest.approx(1e-3, rel=1e-3)


def test_a_step_that_is_not_finite_leaves_the_weights() -> None:
    model = tiny_model("--precision", "bf16", "--ema", "0.9")
    model.set_input(tiny_batch())
    model.optimize_parameters()
    before = copy.deepcopy(model.state_dict())
    spoilt = tiny_batch(1)
    spoilt["clinical"][0, 0, 3, 3] = math.nan
    model.set_input(spoilt)
    model.optimize_parameters()
    assert float(model.losses["skipped"]) == 1
    for name, network in model.networks.items():
        for key, weight in network.state_dict().items():
            assert torch.equal(weight, before["networks"][name][key]), (name, key)


def test_accuracy_of_the_discriminators_is_told() -> None:
    model = tiny_model()
    model.set_input(tiny_batch())
    model.optimize_parameters()
    for name in ("D_A_right", "D_B_right"):
        assert 0 <= float(model.losses[name]) <= 1


@pytest.mark.slow
def test_compiled_networks_are_used_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """By Dynamo alone, which needs no compiler: the graphs that it finds are run as they are."""
    compile_ = torch.compile
    made: list[nn.Module] = []

    def traced(network: nn.Module, **settings: Any) -> Any:
        made.append(network)
        return compile_(network, backend="eager", **settings)

    monkeypatch.setattr(torch, "compile", traced)
    found = []
    textured = ("--norm", "none", "--texture_noise", "2", "--lambda_texture", "1")
    for words in ((), ("--compile",)):
        torch.manual_seed(0)
        model = tiny_model("--engine", "eager", *textured, *words)
        model.set_input(tiny_batch())
        torch.manual_seed(0)
        for _ in range(2):
            model.optimize_parameters()
        found.append({name: float(loss) for name, loss in model.losses.items()})
    assert made == [*model.networks.values(), *model.parts.values()]
    assert found[1] == pytest.approx(found[0], rel=1e-5)


@pytest.mark.gpu
def test_no_step_waits_for_the_gpu() -> None:
    options = tiny_options("--ema", "0.9", "--clip_gradient", "1", "--identity_crop", "16")
    model = MODELS[options.model](options, torch.device("cuda", 0))
    model.set_input(tiny_batch())
    model.optimize_parameters()
    batch = {name: images.pin_memory() for name, images in tiny_batch(1).items()}
    torch.cuda.set_sync_debug_mode("error")
    try:
        model.set_input(batch)
        model.optimize_parameters()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_generator_that_collapses_to_one_value_does_not_stop_the_other(precision: str) -> None:
    """Instance norm of a constant multiplies the gradient by 316 a layer."""
    model = tiny_model("--precision", precision)
    with torch.no_grad():
        last = [p for name, p in model.G_B.named_parameters() if name.endswith("bias")][-1]
        last.fill_(-20.0)  # tanh(-20) is -1 everywhere
    model.set_input(tiny_batch())
    for _ in range(2):
        model.optimize_parameters()
        assert float(model.losses["skipped"]) == 0
        assert float(model.losses["norm_G"]) < 1e4
