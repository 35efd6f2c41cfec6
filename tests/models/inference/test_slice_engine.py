from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from engine_helpers import CPU, forward, image, images, instance_norms, small_generator
from torch import Tensor

from models.fused.statistics import Moments, pooled
from models.inference.memory_plan import SliceMemory
from models.inference.norm_scope import PixelWeights, scope_weights
from models.inference.slice_engine import NormSource, SliceEngine
from models.networks import SRGenerator

pytest_plugins = ["engine_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")

TOLERANCE = 1e-5
NORMS = ["instance", "batch", "none"]
# From four rows a band, the fewest, to the whole slice at once.
BAND_VALUES = [1, 3000, 20_000, 1 << 40]


def engine(generator: SRGenerator, band_values: int | None = None) -> SliceEngine:
    made = SliceEngine(generator, CPU)
    if band_values is not None:
        made.band_values = band_values
    return made


def enlarge(
    made: SliceEngine,
    values: Tensor,
    kept: int = 0,
    norms: NormSource | None = None,
    rows: tuple[int, int] | None = None,
) -> Tensor:
    with torch.inference_mode():
        return made.enlarge(values, norms or NormSource(), kept, rows=rows)


def assert_near(found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("size", [(16, 16), (4, 4), (4, 9), (13, 4), (5, 7), (23, 31)])
@pytest.mark.parametrize("times", [1, 2, 3, 4])
def test_a_slice_of_any_size_equals_one_forward_pass(times: int, size: tuple[int, int]) -> None:
    generator = small_generator(times, blocks=2)
    values = images(2, *size)  # a batch, each slice with statistics of its own
    expected = forward(generator, values)
    for kept in {0, times}:
        for band_values in (1, 1 << 40):
            assert_near(enlarge(engine(generator, band_values), values, kept), expected)


@pytest.mark.parametrize("size", [(16, 16), (4, 9), (13, 5)])
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("norm", ["instance", "none"])
def test_a_generator_beside_the_cubic_enlargement(
    norm: str, times: int, size: tuple[int, int]
) -> None:
    generator = small_generator(times, norm=norm, skip="cubic")
    values = images(2, *size)
    expected = forward(generator, values)
    assert float(expected.abs().max()) == 1  # the cubic enlargement of noise overshoots
    for kept in {0, times}:
        for band_values in (1, 1 << 40):
            assert_near(enlarge(engine(generator, band_values), values, kept), expected)
    rows = enlarge(engine(generator, 1), values, rows=(1, 3))
    inside = slice(2**times, 3 * 2**times)
    assert_near(rows[:, :, inside], expected[:, :, inside])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("band_values", BAND_VALUES)
def test_neither_bands_nor_kept_maps_change_the_values(norm: str, band_values: int) -> None:
    generator = small_generator(3, blocks=2, norm=norm)
    values = images(1, 37, 29)  # no band divides it
    expected = forward(generator, values)
    for kept in range(4):
        assert_near(enlarge(engine(generator, band_values), values, kept), expected)


def test_band_values_are_cut_into_different_numbers_of_bands() -> None:
    made = engine(small_generator(3))
    made._size = torch.Size((1, 1, 37, 29))
    counts = []
    for band_values in BAND_VALUES:
        made.band_values = band_values
        bands = list(made._bands(37, 8, 1, again=False))
        assert [first for first, _ in bands[1:]] == [last for _, last in bands[:-1]]
        assert (bands[0][0], bands[-1][1]) == (0, 37)
        counts.append(len(bands))
    assert counts == [10, 4, 1, 1]


@pytest.mark.parametrize("norm", NORMS)
def test_each_slice_of_a_batch_is_enlarged_as_if_alone(norm: str) -> None:
    generator = small_generator(2, norm=norm)
    values = images(3, 14, 11)
    made = engine(generator, 2000)
    together = enlarge(made, values, kept=1)
    for index in range(3):
        assert_near(enlarge(made, values[index : index + 1], kept=1), together[index : index + 1])


@pytest.mark.parametrize("size", [(2048, 2048), (2048, 64), (64, 2048)])
def test_large_slices_have_no_seams(size: tuple[int, int]) -> None:
    generator = small_generator(1, ngf=2)
    values = images(1, *size)
    expected = forward(generator, values)
    assert_near(enlarge(engine(generator), values, kept=0), expected)


def test_the_input_is_not_changed() -> None:
    values = images(1, 12, 12)
    before = values.clone()
    enlarge(engine(small_generator()), values)
    assert torch.equal(values, before)


def test_the_result_is_float32_within_the_range() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        made = SliceEngine(small_generator(), CPU, dtype)
        result = enlarge(made, images(1, 12, 12) * 1e3)
        assert result.dtype == torch.float32
        assert float(result.abs().max()) <= 1


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_memory_is_used_again_without_a_trace_of_the_last_slice(kept: int) -> None:
    generator = small_generator(2, blocks=3)
    made = engine(generator, 2000)
    enlarge(made, images(1, 20, 24), kept)
    held = made.held_bytes()
    buffers = dict(made._buffers)
    for size in ((20, 24), (9, 13), (24, 20)):
        with torch.inference_mode():
            for buffer in made._buffers.values():
                buffer.fill_(torch.nan)
        values = images(1, *size, seed=1)
        assert_near(enlarge(made, values, kept), forward(generator, values))
    assert made.held_bytes() == held
    assert all(made._buffers[name] is buffer for name, buffer in buffers.items())


def test_a_larger_slice_gets_more_memory_and_release_gives_it_back() -> None:
    generator = small_generator(2)
    made = engine(generator)
    enlarge(made, images(1, 8, 8), kept=2)
    held = made.held_bytes()
    values = images(1, 16, 8)
    assert_near(enlarge(made, values, kept=2), forward(generator, values))
    assert made.held_bytes() == 2 * held
    made.release()
    assert made.held_bytes() == 0
    assert_near(enlarge(made, values, kept=2), forward(generator, values))


def test_what_a_smaller_slice_has_no_use_for_is_idle() -> None:
    made = engine(small_generator(2))
    enlarge(made, images(1, 16, 8), kept=2)
    held = made.held_bytes()
    assert made.idle_bytes(16 * 8, 2) == 0
    assert made.idle_bytes(32 * 8, 2) == 0
    assert made.idle_bytes(8 * 8, 2) == held // 2
    enlarge(made, images(1, 16, 8), kept=0)
    tail = (16 * 8) * (16 + 8 * 4) * 4
    assert made.idle_bytes(16 * 8, 0) == tail


def memory_of(made: SliceEngine, generator: SRGenerator, itemsize: int = 4) -> SliceMemory:
    architecture = generator.architecture
    return SliceMemory(
        int(architecture["ngf"]),
        int(architecture["sampling_times"]),
        itemsize,
        made.recomputed_values,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kept", [0, 1, 2, 3])
def test_the_maps_that_are_held_are_those_of_the_plan(kept: int, dtype: torch.dtype) -> None:
    generator = small_generator(3, blocks=2)
    made = SliceEngine(generator, CPU, dtype)
    values = images(2, 17, 12)
    result = enlarge(made, values, kept)
    memory = memory_of(made, generator, dtype.itemsize)
    bands = memory.needed(0, kept)
    assert memory.needed(values.numel(), kept) == made.held_bytes() + result.nbytes + bands


def peak_bytes(work: Callable[[], object]) -> int:
    """Most memory that torch held at once during a call, beyond what it held before."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        work()
    recorded = profile.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in recorded if e.name() == "[memory]")
    return int(np.cumsum([change for _, change in changes]).max())


@pytest.mark.parametrize("size", [(96, 96), (256, 48)])
@pytest.mark.parametrize("band_values", [1 << 14, 1 << 19])
def test_the_plan_bounds_the_memory_at_every_moment(
    size: tuple[int, int], band_values: int
) -> None:
    generator = small_generator(2, ngf=32)
    values = images(1, *size)
    for kept in range(3):
        made = engine(generator, band_values)
        peak = peak_bytes(partial(enlarge, made, values, kept))
        assert made.held_bytes() < peak
        assert peak <= memory_of(made, generator).needed(values.numel(), kept)


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("rows", [(0, 1), (3, 4), (5, 12), (10, 21), (20, 21), (0, 21)])
def test_rows_that_are_asked_for_are_those_of_the_whole(times: int, rows: tuple[int, int]) -> None:
    generator = small_generator(times)
    values = images(1, 21, 10)
    whole = forward(generator, values)
    for kept in (0, times):
        part = enlarge(engine(generator, 2000), values, kept, rows=rows)
        assert part.shape == whole.shape
        first, last = (row * generator.scale for row in rows)
        assert_near(part[:, :, first:last], whole[:, :, first:last])
        # Rows come in pairs of the last map's; beyond them nothing is computed.
        assert not part[:, :, : max(0, first - 2)].any()
        assert not part[:, :, last + 2 :].any()


def mask_of(rows: int, columns: int) -> np.ndarray:
    """Two lungs, neither of them touching the border."""
    y, x = np.mgrid[:rows, :columns]
    left = (y - rows / 2) ** 2 / (rows / 3) ** 2 + (x - columns / 4) ** 2 / (columns / 6) ** 2
    right = (y - rows / 2) ** 2 / (rows / 4) ** 2 + (x - columns * 0.7) ** 2 / (columns / 5) ** 2
    mask: np.ndarray = (left < 1) | (right < 1)
    return mask


def norms_over(mask: np.ndarray) -> NormSource:
    return NormSource(scope_weights(mask, CPU))


@pytest.mark.parametrize("norm", NORMS)
def test_a_scope_of_everything_is_no_scope(norm: str) -> None:
    generator = small_generator(2, norm=norm)
    values = images(1, 18, 15)
    found = enlarge(engine(generator, 2000), values, 1, norms_over(np.ones((18, 15))))
    assert_near(found, forward(generator, values))


def test_every_norm_is_measured_over_the_pixels_of_the_scope() -> None:
    """Compared with what the generator's norms see once they use just those statistics."""
    generator = small_generator(2, blocks=2)
    values = images(1, 18, 15)
    norms = norms_over(mask_of(18, 15))
    enlarge(engine(generator, 2000), values, 1, norms)
    assert len(norms.measured) == len(list(instance_norms(generator))) == 8
    seen: list[Tensor] = []
    for index, (_, _, norm) in enumerate(instance_norms(generator)):

        def normalise(
            module: torch.nn.Module, inputs: tuple[Tensor], output: Tensor, index: int = index
        ) -> Tensor:
            seen.append(inputs[0])
            scale, shift = norms.measured[index].affine(1e-5)
            return inputs[0] * scale + shift

        norm.register_forward_hook(normalise)
    forward(generator, values)
    mask = torch.from_numpy(mask_of(18, 15))
    for raw, moments in zip(seen, norms.measured, strict=True):
        factor = raw.shape[2] // 18
        chosen = mask.repeat_interleave(factor, 0).repeat_interleave(factor, 1)
        pixels = raw[0][:, chosen].double()
        assert float(moments.count) == pixels.shape[1]
        assert_near(moments.mean.flatten(), pixels.mean(1))
        variance = (moments.deviation / moments.count).flatten()
        torch.testing.assert_close(variance, pixels.var(1, correction=0), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("band_values", BAND_VALUES)
def test_neither_bands_nor_kept_maps_change_a_scoped_slice(band_values: int) -> None:
    generator = small_generator(3, blocks=2)
    values, mask = images(1, 37, 29), mask_of(37, 29)
    expected = enlarge(engine(generator), values, 3, norms_over(mask))
    for kept in range(4):
        found = enlarge(engine(generator, band_values), values, kept, norms_over(mask))
        assert_near(found, expected)
    assert float((expected - forward(generator, values)).abs().max()) > 1e-2


def test_bands_of_weights_are_the_rows_of_the_enlarged_mask() -> None:
    mask = mask_of(12, 9)
    weights = scope_weights(mask, CPU)
    for factor in (1, 2, 4, 8):
        whole = torch.from_numpy(mask.repeat(factor, 0).repeat(factor, 1).astype(np.float32))
        for first, last in ((0, 12 * factor), (0, 1), (5, 7), (factor, 3 * factor), (3, 10)):
            found = weights.rows(first, last, factor)
            assert torch.equal(found[0, 0], whole[first:last])


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_given_statistics_of_a_slice_reproduce_it(kept: int) -> None:
    generator = small_generator(2, blocks=2)
    values = images(1, 20, 17)
    made = engine(generator, 2000)
    for norms in (NormSource(), norms_over(mask_of(20, 17))):
        own = enlarge(made, values, kept, norms)
        again = NormSource(given=norms.measured)
        assert_near(enlarge(made, values, kept, again), own)
        assert again.measured == list(norms.measured)


def test_given_statistics_leave_each_pixel_to_its_neighbourhood() -> None:
    generator = small_generator(2)
    made = engine(generator)
    norms = NormSource()
    enlarge(made, images(1, 20, 17, seed=1), 2, norms)
    values = images(1, 60, 17)
    changed = values.clone()
    changed[:, :, 30:] = 1
    first = enlarge(made, values, 2, NormSource(given=norms.measured))
    second = enlarge(made, changed, 2, NormSource(given=norms.measured))
    assert_near(first[:, :, : 18 * 4], second[:, :, : 18 * 4])
    assert float((first - forward(generator, values)).abs().max()) > 1e-2


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kept", [0, 2])
def test_measuring_alone_gives_the_statistics_of_enlarging(norm: str, kept: int) -> None:
    generator = small_generator(2, norm=norm)
    made = engine(generator, 2000)
    values = images(1, 20, 17)
    both = NormSource(), NormSource()
    enlarge(made, values, kept, both[0])
    with torch.inference_mode():
        made.measure_norms(values, both[1], kept)
    assert len(both[1].measured) == (6 if norm == "instance" else 0)
    assert_moments(both[1].measured, both[0].measured)


def assert_moments(found: list[Moments], expected: list[Moments]) -> None:
    for one, other in zip(found, expected, strict=True):
        for name in ("count", "mean", "deviation"):
            torch.testing.assert_close(
                getattr(one, name), getattr(other, name), atol=1e-6, rtol=1e-5
            )


def test_statistics_of_the_first_norm_pool_over_slices() -> None:
    """Later norms see what the first made of each slice; the first sees the bare convolution."""
    generator = small_generator(2)
    parts, norms = images(2, 16, 16), [NormSource(), NormSource()]
    made = engine(generator)
    for part, source in zip(parts, norms, strict=True):
        enlarge(made, part[None], 2, source)
    found = pooled([source.measured[0] for source in norms])
    with torch.inference_mode():
        raw = generator.model[:2](parts).transpose(0, 1).double()
    assert_near(found.mean.flatten(), raw.mean((1, 2, 3)))
    variance = (found.deviation / found.count).flatten()
    assert_near(variance, raw.var((1, 2, 3), correction=0))


@pytest.mark.parametrize("norm", NORMS)
def test_the_tail_takes_a_trunk_that_was_computed_elsewhere(norm: str) -> None:
    generator = small_generator(2, blocks=2, norm=norm)
    values = images(2, 15, 18)
    with torch.inference_mode():
        features = generator.model[:10](values)
        before = features.clone()
        for kept in range(3):
            found = engine(generator, 2000).enlarge(values, NormSource(), kept, features)
            assert_near(found, forward(generator, values))
    assert torch.equal(features, before)


def test_half_precision_is_near_full_precision() -> None:
    generator = small_generator(3, blocks=2)
    values = images(1, 24, 20)
    exact = forward(generator, values)
    for kept in (0, 3):
        rough = enlarge(SliceEngine(generator, CPU, torch.bfloat16), values, kept)
        assert 0 < float((rough - exact).abs().mean()) < 0.05


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler (g++)")
@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT",
    reason="torch.compile writes C++ for vector instructions, which are turned off here",
)
def test_compiled_equals_plain() -> None:
    """Slices of several sizes, each layer with its own slope, with and without scope."""
    generator = small_generator(2)
    made = SliceEngine(generator, CPU, compiled=True)
    made.band_values = 2000
    for size in ((20, 24), (21, 13)):
        values = images(1, *size)
        for norms in (NormSource(), norms_over(mask_of(*size))):
            expected = enlarge(engine(generator), values, 2, NormSource(norms.weights))
            assert_near(enlarge(made, values, 1, norms), expected)


def test_weights_without_any_pixel_in_a_band_are_no_fault() -> None:
    generator = small_generator(1)
    mask = np.zeros((40, 12))
    mask[20:24, 3:9] = 1
    values = torch.from_numpy(image(40, 12))[None, None]
    expected = enlarge(engine(generator), values, 1, norms_over(mask))
    found = enlarge(engine(generator, 1), values, 0, NormSource(PixelWeights(scope(mask))))
    assert bool(torch.isfinite(found).all())
    assert_near(found, expected)


def scope(mask: np.ndarray) -> Tensor:
    return torch.from_numpy(mask.astype(np.float32))[None, None]
