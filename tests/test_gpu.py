"""What a GPU must give: the CPU's numbers, in every engine, without waiting.

`bash check.sh -m gpu` runs these and the other tests that need a CUDA device.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from engine_helpers import CPU, image, small_generator
from test_parity import Golden, parity_files
from training_helpers import tiny_batch, tiny_options

from models.inference.slice_jobs import SliceJob
from models.inference.super_resolver import SuperResolver
from models.loss_names import LOSSES
from models.medical_cycle_gan import MODELS, MedicalCycleGANModel
from util.devices import set_up_cudnn
from util.images.intensity_window import IntensityWindow

pytestmark = pytest.mark.gpu
GPU = torch.device("cuda", 0)
# Another order of additions than the CPU's.
SR_TOLERANCE = 2e-5


@pytest.fixture(scope="module", params=list(parity_files()), ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.param)


@pytest.fixture(autouse=True)
def exact_cudnn() -> Iterator[None]:
    """As training and the tests of other devices have it."""
    before = torch.backends.cudnn.allow_tf32
    set_up_cudnn()
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before, False
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("engine", ["eager", "fused"])
def test_golden_numbers_of_the_first_step(golden: Golden, engine: str) -> None:
    model = golden.model("--engine", engine, device=GPU)
    model.optimize_parameters()
    assert golden.loss_misses(model, 1) == []


def gpu_model(*words: str) -> MedicalCycleGANModel:
    options = tiny_options("--ema", "0.9", "--clip_gradient", "1", *words)
    torch.manual_seed(0)
    return MODELS[options.model](options, GPU)


def losses_of_a_step(*words: str) -> dict[str, float]:
    model = gpu_model(*words)
    model.set_input(tiny_batch())
    model.optimize_parameters()
    return {name: float(model.losses[name]) for name in LOSSES}


@pytest.mark.parametrize(
    "words", [("--engine", "fused"), ("--engine", "eager", "--compile")], ids=["fused", "compiled"]
)
def test_engines_agree(words: tuple[str, ...]) -> None:
    expected = losses_of_a_step("--engine", "eager")
    assert losses_of_a_step(*words) == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("engine", ["eager", "fused"])
def test_bf16_is_near_fp32(engine: str) -> None:
    expected = losses_of_a_step("--engine", engine)
    found = losses_of_a_step("--engine", engine, "--precision", "bf16")
    assert found == pytest.approx(expected, rel=0.1, abs=0.02)
    assert found != expected


@pytest.mark.parametrize("engine", ["eager", "fused"])
def test_tf32_is_nearer(engine: str) -> None:
    expected = losses_of_a_step("--engine", engine)
    set_up_cudnn("tf32")
    found = losses_of_a_step("--engine", engine, "--precision", "tf32")
    assert found == pytest.approx(expected, rel=0.02, abs=0.004)
    assert found != expected


@pytest.mark.parametrize(
    "words",
    [
        ("--engine", "fused"),
        ("--engine", "fused", "--precision", "bf16"),
        ("--engine", "eager"),
        ("--engine", "eager", "--precision", "bf16"),
        ("--identity_crop", "16"),
        ("--skip", "cubic", "--norm", "none", "--lambda_pair", "1"),
        ("--lambda_pair", "1", "--pair_blur", "1.5", "--pair_noise", "0.03"),
        ("--norm", "none", "--texture_noise", "3", "--lambda_texture", "1"),
        (
            "--lambda_pair",
            "1",
            "--scanner",
            "random",
            "--lambda_stability",
            "1",
            "--lambda_lattice",
            "100",
        ),
    ],
    ids=" ".join,
)
def test_no_step_waits(words: tuple[str, ...]) -> None:
    model = gpu_model(*words)
    batches = [
        {name: images.pin_memory() for name, images in tiny_batch(seed).items()}
        for seed in range(3)
    ]
    if "random" in words:
        for batch in batches:
            count = len(batch["clinical"])
            batch["shrunk"] = (torch.arange(count) % 2 == 0).pin_memory()
    for _ in range(3):  # the first steps make what is kept, and record what is replayed
        for batch in batches[:2]:
            model.set_input(batch)
            model.optimize_parameters()
    torch.cuda.set_sync_debug_mode("error")
    try:
        model.set_input(batches[2])
        model.optimize_parameters()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert float(model.losses["skipped"]) == 0


def test_replayed_steps_are_those_that_were_recorded() -> None:
    """At rate 0 nothing lets rounding grow; a smaller batch in between is computed as it is."""
    found = []
    for recorded in (True, False):
        model = gpu_model("--lr", "0")
        assert model.graphed is not None
        if not recorded:
            model.graphed = None
        losses = []
        for step in range(8):
            batch = tiny_batch(step, count=1 if step == 5 else 2)
            model.set_input(batch)
            model.optimize_parameters()
            losses.append([float(model.losses[name]) for name in LOSSES])
            assert torch.equal(model.pictures()["real_A"], batch["clinical"][0, 0])
        found.append((losses, model.pictures()["fake_B"]))
    assert np.allclose(found[0][0], found[1][0], rtol=1e-4, atol=1e-6)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-4)


def test_a_replayed_step_takes_the_learning_rate_of_now() -> None:
    model = gpu_model("--lr", "0")
    for step in range(6):
        before = [parameter.detach().clone() for parameter in model.G_A.parameters()]
        if step == 5:
            for optimizer in model.optimizers.values():
                optimizer.param_groups[0]["lr"] = 1e-3
        model.set_input(tiny_batch(step))
        model.optimize_parameters()
        moved = [
            float((now - then).abs().max())
            for now, then in zip(model.G_A.parameters(), before, strict=True)
        ]
        assert (max(moved) > 1e-5) == (step == 5)


@pytest.mark.parametrize(
    "words", [(), ("--precision", "bf16"), ("--norm", "none", "--skip", "cubic")], ids=" ".join
)
def test_a_deterministic_run_goes_on_where_it_was(words: tuple[str, ...]) -> None:
    """Weights, moments, pools and averages to the last bit; the straight run replays its end."""
    set_up_cudnn(deterministic=True)
    straight = gpu_model(*words)
    for seed in range(8):
        straight.set_input(tiny_batch(seed))
        straight.optimize_parameters()
    first = gpu_model(*words)
    for seed in range(6):
        first.set_input(tiny_batch(seed))
        first.optimize_parameters()
    resumed = gpu_model(*words)
    resumed.load_state_dict(first.state_dict())
    resumed.load_pools(first.pools_state())
    for seed in range(6, 8):
        resumed.set_input(tiny_batch(seed))
        resumed.optimize_parameters()
    for name, network in straight.networks.items():
        for key, weight in network.state_dict().items():
            assert torch.equal(weight, resumed.networks[name].state_dict()[key]), (name, key)


@pytest.mark.parametrize(
    ("norm", "skip"), [("instance", "none"), ("none", "cubic"), ("batch", "none")]
)
@pytest.mark.parametrize("max_memory", [None, 5_000_000], ids=["kept", "recomputed"])
def test_slices_are_those_of_the_cpu(norm: str, skip: str, max_memory: int | None) -> None:
    generator = small_generator(norm=norm, skip=skip)
    values = image(70, 53)
    expected = SuperResolver(generator, CPU).upscale_slice(values)
    found = SuperResolver(generator, GPU, max_memory=max_memory).upscale_slice(values)
    assert np.abs(found - expected).max() < SR_TOLERANCE
    for precision, limit in (("bf16", 0.02), ("tf32", 0.004), ("fp16", 0.004)):
        near = SuperResolver(generator, GPU, precision).upscale_slice(values)
        assert 0 < np.abs(near - expected).mean() < limit, precision
    again = SuperResolver(generator, GPU, max_memory=max_memory).upscale_slice(values)
    assert np.array_equal(again, found)


def test_slices_under_way_do_not_disturb_each_other() -> None:
    resolver = SuperResolver(small_generator(), GPU)
    sources = [image(128, 128, seed) for seed in range(6)]
    jobs = [SliceJob(source) for source in sources]
    for source, found in zip(sources, resolver.upscale_slices(jobs), strict=True):
        assert found is not None
        assert np.array_equal(found, resolver.upscale_slice(source))


def test_a_volume_is_that_of_the_cpu() -> None:
    volume = np.stack([image(40, 44, seed) for seed in range(3)]) * 500 - 500
    mask = np.zeros(volume.shape, dtype=bool)
    mask[:2, 5:30, 6:40] = True
    generator = small_generator()
    found, expected = (
        SuperResolver(generator, device).upscale(volume, mask, window=IntensityWindow(-1000.0, 0.0))
        for device in (GPU, CPU)
    )
    assert np.abs(found - expected).max() < 0.05  # HU
