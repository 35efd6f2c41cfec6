from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from engine_helpers import CPU, disc, forward_slice, image, small_generator
from torch import Tensor

import models.inference.openvino_trunk
import models.inference.slice_resolver
from models.drawn_texture import slice_noise
from models.fused.statistics import Moments
from models.inference.memory_plan import SliceMemory
from models.inference.norm_scope import FEWEST_PIXELS, at_least, scope_weights
from models.inference.openvino_trunk import choose_backend
from models.inference.precision import fp32_convolutions
from models.inference.slice_engine import NormSource
from models.inference.slice_jobs import SliceJob, receptive_radius
from models.inference.slice_resolver import SliceResolver
from models.networks import SRGenerator
from util.errors import UserError

pytest_plugins = ["engine_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")

NO_MEMORY = "[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory"


@pytest.fixture
def generator() -> SRGenerator:
    return small_generator(2)


def enlarged(mask: np.ndarray, scale: int) -> np.ndarray:
    result: np.ndarray = mask.repeat(scale, 0).repeat(scale, 1)
    return result


# Sizes and equality with the generator


@pytest.mark.parametrize("size", [(16, 16), (33, 47), (1, 1), (3, 50)])
def test_any_size_is_enlarged_whole(generator: SRGenerator, size: tuple[int, int]) -> None:
    result = SliceResolver(generator, CPU).upscale_slice(image(*size))
    assert result.shape == (size[0] * 4, size[1] * 4)
    assert result.dtype == np.float32


@pytest.mark.parametrize("times", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(20, 24), (4, 4), (17, 31)])
def test_whole_slice_equals_the_generator(times: int, size: tuple[int, int]) -> None:
    generator = small_generator(times)
    values = image(*size)
    found = SliceResolver(generator, CPU).upscale_slice(values)
    np.testing.assert_allclose(found, forward_slice(generator, values), atol=1e-5)


def test_each_slice_is_enlarged_by_one_run_of_the_engine(
    generator: SRGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = SliceResolver(generator, CPU)
    calls = []
    original = resolver.engine.enlarge

    def counted(images: Tensor, *others: object) -> Tensor:
        calls.append(tuple(images.shape))
        return original(images, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(resolver.engine, "enlarge", counted)
    resolver.upscale_slice(image(20, 24))
    assert calls == [(1, 1, 20, 24)]


@pytest.mark.parametrize("size", [(3, 50), (2, 3), (9, 1)])
def test_a_slice_too_small_for_the_network_is_continued_by_its_edge(
    generator: SRGenerator, size: tuple[int, int]
) -> None:
    values = image(*size)
    padded = np.pad(values, [(0, max(0, 4 - length)) for length in size], mode="edge")
    expected = forward_slice(generator, padded)[: size[0] * 4, : size[1] * 4]
    for scope in (None, np.ones(size, dtype=bool)):
        found = SliceResolver(generator, CPU).upscale_slice(values, scope, scope)
        assert found.shape == expected.shape
        if scope is None:
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_slice_may_be_any_view(generator: SRGenerator) -> None:
    resolver = SliceResolver(generator, CPU)
    values = image(20, 24)
    expected = resolver.upscale_slice(np.ascontiguousarray(values[::-1, ::2]))
    values.setflags(write=False)
    assert np.array_equal(resolver.upscale_slice(values[::-1, ::2]), expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (6, 1)])
def test_a_slice_of_one_pixels_width_may_be_mirrored(
    generator: SRGenerator, size: tuple[int, int]
) -> None:
    """numpy calls such a view contiguous, and torch refuses its negative strides."""
    resolver = SliceResolver(generator, CPU)
    values = image(*size)
    for view in (values[::-1], values[:, ::-1], values[::-1, ::-1]):
        expected = resolver.upscale_slice(view.copy())
        assert np.array_equal(resolver.upscale_slice(view), expected)


# Tiles as published


def test_tiles_cover_everything_with_their_own_statistics(generator: SRGenerator) -> None:
    values = image(40, 50)
    tiled = SliceResolver(generator, CPU, tile_size=16).upscale_slice(values)
    assert tiled.shape == (160, 200)
    first = forward_slice(generator, values[:16, :16])
    last = forward_slice(generator, values[24:, 34:])
    np.testing.assert_allclose(tiled[:64, :64], first, atol=1e-6)
    # The last tile is moved inwards to full size; only its uncovered part is used.
    np.testing.assert_allclose(tiled[128:, 192:], last[32:, 56:], atol=1e-6)
    whole = SliceResolver(generator, CPU).upscale_slice(values)
    assert np.abs(tiled - whole).max() > 1e-3


def test_a_tile_larger_than_the_slice_is_the_whole_slice(generator: SRGenerator) -> None:
    values = image(12, 30)
    whole = SliceResolver(generator, CPU).upscale_slice(values)
    tiled = SliceResolver(generator, CPU, tile_size=64).upscale_slice(values)
    assert np.array_equal(whole, tiled)


def test_tiles_of_a_series_keep_to_their_slice(generator: SRGenerator) -> None:
    resolver = SliceResolver(generator, CPU, tile_size=8)
    values = [image(12, 10, seed) for seed in range(3)]
    for found, slice_ in zip(resolver.upscale_slices(map(SliceJob, values)), values, strict=True):
        assert found is not None
        assert np.array_equal(found, resolver.upscale_slice(slice_))


# Leaving out what is not needed


@pytest.mark.parametrize("place", [(20, 30, 19), (0, 0, 40), (60, 89, 44)])
@pytest.mark.parametrize("times", [1, 3])
def test_leaving_out_what_is_not_needed_changes_nothing_inside(
    times: int, place: tuple[float, float, float]
) -> None:
    generator = small_generator(times)
    resolver = SliceResolver(generator, CPU)
    values, scope = image(70, 90), disc(70, 90, *place)
    assert np.count_nonzero(scope) > FEWEST_PIXELS
    for needed in (scope, disc(70, 90, place[0] + 5, place[1] + 3, 6)):
        whole = resolver.upscale_slice(values, scope)
        part = resolver.upscale_slice(values, scope, needed)
        assert part.shape == whole.shape
        inside = enlarged(needed, generator.scale)
        np.testing.assert_allclose(part[inside], whole[inside], atol=1e-5)


def test_a_scope_of_few_pixels_is_grown_before_anything_is_left_out(
    generator: SRGenerator,
) -> None:
    """The pixels that it grows to lie beyond the margin that the needed ones need."""
    resolver = SliceResolver(generator, CPU)
    values, scope = image(90, 96), disc(90, 96, 40, 44, 3)
    radius = np.sqrt(FEWEST_PIXELS / np.pi)
    assert radius > 3 + receptive_radius(1)
    whole = resolver.upscale_slice(values, scope)
    part = resolver.upscale_slice(values, scope, scope)
    inside = enlarged(scope, 4)
    np.testing.assert_allclose(part[inside], whole[inside], atol=1e-5)
    assert_moments(resolver.measure_slice(values, scope), statistics(resolver, values, scope))


def statistics(resolver: SliceResolver, values: np.ndarray, scope: np.ndarray) -> list[Moments]:
    """Norm statistics of a whole slice of which nothing is left out."""
    norms = NormSource(scope_weights(at_least(scope, FEWEST_PIXELS), CPU))
    with torch.inference_mode():
        resolver.engine.measure_norms(torch.from_numpy(values)[None, None], norms, 0)
    return norms.measured


def assert_moments(found: tuple[Moments, ...], expected: list[Moments]) -> None:
    for one, other in zip(found, expected, strict=True):
        for name in ("count", "mean", "deviation"):
            torch.testing.assert_close(
                getattr(one, name), getattr(other, name), atol=1e-5, rtol=1e-5
            )


@pytest.mark.parametrize("times", [1, 2, 3])
def test_given_statistics_allow_leaving_out_all_but_the_neighbourhood(
    times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = small_generator(times)
    resolver = SliceResolver(generator, CPU)
    values, needed = image(70, 90), disc(70, 90, 30, 50, 6)
    resolver.use_statistics([resolver.measure_slice(image(30, 30, seed=1))])
    whole = resolver.upscale_slice(values)
    shapes = []
    original = resolver.engine.enlarge

    def watched(images: Tensor, *others: object) -> Tensor:
        shapes.append(tuple(images.shape[2:]))
        return original(images, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(resolver.engine, "enlarge", watched)
    part = resolver.upscale_slice(values, needed=needed)
    inside = enlarged(needed, generator.scale)
    np.testing.assert_allclose(part[inside], whole[inside], atol=1e-5)
    reach = receptive_radius(1)
    assert shapes == [(11 + 2 * reach, 11 + 2 * reach)]
    far = ~enlarged(disc(70, 90, 30, 50, 45), generator.scale)
    assert not part[far].any()


def test_with_statistics_of_the_whole_slice_only_rows_are_left_out(
    generator: SRGenerator,
) -> None:
    resolver = SliceResolver(generator, CPU)
    values, needed = image(40, 30), np.zeros((40, 30), dtype=bool)
    needed[11:23, 7:9] = True
    whole = resolver.upscale_slice(values)
    part = resolver.upscale_slice(values, needed=needed)
    rows = slice(11 * 4, 23 * 4)
    np.testing.assert_allclose(part[rows], whole[rows], atol=1e-5)
    assert not part[: 10 * 4].any()
    assert not part[24 * 4 :].any()


@pytest.mark.parametrize(("times", "blocks"), [(1, 1), (2, 3), (4, 2)])
def test_a_slice_reaches_no_farther_than_the_radius(times: int, blocks: int) -> None:
    """The margin that is left around what is needed, against the network itself."""
    generator = small_generator(times, blocks=blocks, norm="none")
    reach = receptive_radius(blocks)
    centre = reach + 2
    values = image(2 * centre + 1, 2 * centre + 1)
    changed = values.copy()
    changed[centre, centre] += 1
    touched = forward_slice(generator, values) != forward_slice(generator, changed)
    for axis in (0, 1):
        pixels = np.flatnonzero(touched.any(axis=axis)) // generator.scale
        assert centre - reach <= pixels[0] < centre - reach + 4
        assert centre + reach - 4 < pixels[-1] <= centre + reach


# Statistics of a volume


def test_statistics_of_one_slice_reproduce_it(generator: SRGenerator) -> None:
    resolver = SliceResolver(generator, CPU)
    values = image(30, 26)
    own = resolver.upscale_slice(values)
    resolver.use_statistics([resolver.measure_slice(values)])
    np.testing.assert_allclose(resolver.upscale_slice(values), own, atol=1e-5)


def test_statistics_of_one_scope_reproduce_its_slice(generator: SRGenerator) -> None:
    resolver = SliceResolver(generator, CPU)
    values, scope = image(60, 64), disc(60, 64, 20, 30, 20)
    own = resolver.upscale_slice(values, scope)
    resolver.use_statistics([resolver.measure_slice(values, scope)])
    for given in (None, scope):  # the volume's statistics go before the slice's scope
        np.testing.assert_allclose(resolver.upscale_slice(values, given), own, atol=1e-5)


def test_statistics_are_those_of_the_pixels_of_all_slices(generator: SRGenerator) -> None:
    resolver = SliceResolver(generator, CPU)
    slices = [image(24, 20), image(24, 20, seed=1) * 0.3 + 0.4, image(10, 30, seed=2)]
    measured = [resolver.measure_slice(values) for values in slices]
    resolver.use_statistics(measured)
    assert resolver._statistics is not None
    with torch.inference_mode():
        raw = [
            generator.model[:2](torch.from_numpy(values)[None, None]).flatten(2)
            for values in slices
        ]
    pixels = torch.cat(raw, dim=2)[0].double()
    found = resolver._statistics[0]
    assert float(found.count) == sum(values.size for values in slices)
    torch.testing.assert_close(found.mean.flatten(), pixels.mean(1), atol=1e-6, rtol=1e-6)
    variance = (found.deviation / found.count).flatten()
    torch.testing.assert_close(variance, pixels.var(1, correction=0), atol=1e-6, rtol=1e-5)
    # Layer by layer, what each slice gave in turn.
    assert len(resolver._statistics) == 6
    for layer, together in enumerate(resolver._statistics):
        counts = [float(one[layer].count) for one in measured]
        means = torch.stack([one[layer].mean for one in measured])
        weights = torch.tensor(counts, dtype=torch.float64).view(-1, 1, 1, 1, 1) / sum(counts)
        torch.testing.assert_close(together.mean, (means * weights).sum(0), atol=1e-9, rtol=1e-9)


def test_no_statistics_restore_those_of_each_slice(generator: SRGenerator) -> None:
    resolver = SliceResolver(generator, CPU)
    values = image(20, 24)
    own = resolver.upscale_slice(values)
    resolver.use_statistics([resolver.measure_slice(image(20, 24, seed=1) * 0.2)])
    assert np.abs(resolver.upscale_slice(values) - own).max() > 1e-2
    resolver.use_statistics(None)
    assert np.array_equal(resolver.upscale_slice(values), own)


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_without_instance_norm_there_is_nothing_to_measure(norm: str) -> None:
    generator = small_generator(norm=norm)
    resolver = SliceResolver(generator, CPU)
    values = image(20, 24)
    measured = resolver.measure_slice(values)
    assert measured == ()
    resolver.use_statistics([measured, measured])
    np.testing.assert_allclose(
        resolver.upscale_slice(values), forward_slice(generator, values), atol=1e-5
    )


@pytest.mark.parametrize("backend", ["torch", "openvino"])
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_without_instance_norm_a_scope_has_no_effect(norm: str, backend: str) -> None:
    if backend == "openvino" != choose_backend("auto", CPU):
        pytest.skip("OpenVINO is missing or held back")
    generator = small_generator(norm=norm, skip="cubic")
    resolver = SliceResolver(generator, CPU, backend=backend)
    values = image(40, 90)
    scope = np.zeros((40, 90), dtype=np.uint8)
    scope[10:14, 5:9] = 1
    expected = forward_slice(generator, values)
    np.testing.assert_allclose(resolver.upscale_slice(values, scope), expected, atol=1e-5)
    needed = resolver.upscale_slice(values, scope, needed=scope)
    inside = np.kron(scope, np.ones((4, 4))) > 0
    np.testing.assert_allclose(needed[inside], expected[inside], atol=1e-5)
    # Nothing ties the slice together, so what lies far away is left out.
    assert not needed[:, -100:].any()


# Series of slices


@pytest.mark.parametrize("given", [False, True])
def test_a_series_equals_slice_by_slice_in_order(generator: SRGenerator, given: bool) -> None:
    resolver = SliceResolver(generator, CPU)
    if given:
        resolver.use_statistics([resolver.measure_slice(image(30, 30, seed=9))])
    full = np.ones((40, 44), dtype=bool)
    scope = disc(40, 44, 20, 20, 19)
    jobs = [SliceJob(image(40, 44, seed)) for seed in range(4)]
    jobs += [SliceJob(image(40, 44, 4), scope), SliceJob(image(40, 44, 5), full, scope)]
    jobs += [SliceJob(image(12, 9, seed)) for seed in range(6, 9)]
    series: list[SliceJob | None] = [None, *jobs[:3], None, *jobs[3:7], jobs[7], jobs[8], None]
    found = list(resolver.upscale_slices(series))
    assert len(found) == len(series)
    for one, job in zip(found, series, strict=True):
        if job is None:
            assert one is None
        else:
            alone = resolver.upscale_slice(job.image, job.scope, job.needed)
            assert one is not None
            np.testing.assert_allclose(one, alone, atol=1e-5)


def test_small_slices_share_a_call_and_large_ones_do_not(
    generator: SRGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models.inference.slice_resolver, "GROUP_PIXELS", 1000)
    resolver = SliceResolver(generator, CPU)
    counts = []
    original = resolver.engine.enlarge

    def counted(images: Tensor, *others: object) -> Tensor:
        counts.append(len(images))
        return original(images, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(resolver.engine, "enlarge", counted)
    assert len(list(resolver.upscale_slices(SliceJob(image(20, 16)) for _ in range(7)))) == 7
    assert counts == [3, 3, 1]
    counts.clear()
    assert len(list(resolver.upscale_slices(SliceJob(image(32, 32)) for _ in range(3)))) == 3
    assert counts == [1, 1, 1]
    assert SliceResolver(generator, CPU, tile_size=16).group_size(4, 4) == 1


def test_no_more_slices_share_a_call_than_memory_holds(generator: SRGenerator) -> None:
    resolver = SliceResolver(generator, CPU, max_memory=2_000_000)
    assert resolver.group_size(1, 1) == resolver.group_size(4, 4)  # as small ones are padded
    most = resolver.group_size(16, 16)
    assert 1 <= most < models.inference.slice_resolver.GROUP_PIXELS // 16**2
    found = list(resolver.upscale_slices(SliceJob(image(16, 16)) for _ in range(2 * most + 1)))
    assert len(found) == 2 * most + 1


def test_a_series_is_read_no_farther_than_it_is_asked_for(generator: SRGenerator) -> None:
    """A volume comes slice by slice from its file and shall not pile up in memory."""
    read = 0

    def jobs() -> Iterator[SliceJob]:
        nonlocal read
        for _ in range(10):
            read += 1
            yield SliceJob(image(130, 130))

    resolver = SliceResolver(small_generator(1, ngf=2), CPU)
    series = resolver.upscale_slices(jobs())
    for count in (1, 2, 3):
        next(series)
        assert read == count


def test_an_empty_series_gives_nothing(generator: SRGenerator) -> None:
    assert list(SliceResolver(generator, CPU).upscale_slices([])) == []


# Memory


def plan(resolver: SliceResolver) -> SliceMemory:
    return SliceMemory(8, 2, 4, resolver.engine.recomputed_values)


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_the_budget_decides_how_many_maps_are_kept_but_no_value(
    generator: SRGenerator, kept: int
) -> None:
    values = image(37, 30)
    resolver = SliceResolver(generator, CPU)
    resolver.max_memory = plan(resolver).needed(values.size, kept)
    found = resolver.upscale_slice(values)
    np.testing.assert_allclose(found, forward_slice(generator, values), atol=1e-5)
    assert resolver.engine.held_bytes() == values.size * 4 * (3 * 8 + [0, 16, 16 + 32][kept])


def test_slices_of_changing_size_stay_within_the_budget(generator: SRGenerator) -> None:
    """What a slice leaves for the next counts as well."""
    resolver = SliceResolver(generator, CPU)
    budget = resolver.max_memory = plan(resolver).needed(40 * 40, 2)
    bands = plan(resolver).needed(0, 0)
    for rows, columns in ((40, 40), (60, 50), (40, 40), (70, 50), (20, 20), (40, 40), (66, 50)):
        values = image(rows, columns)
        found = resolver.upscale_slice(values)
        np.testing.assert_allclose(found, forward_slice(generator, values), atol=1e-5)
        assert resolver.engine.held_bytes() + found.nbytes + bands <= budget


def test_slices_of_one_size_use_the_same_memory(
    generator: SRGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = SliceResolver(generator, CPU)
    resolver.max_memory = plan(resolver).needed(40 * 40, 2)
    resolver.upscale_slice(image(40, 40))

    def released() -> None:
        raise AssertionError("memory was given back")

    monkeypatch.setattr(resolver.engine, "release", released)
    resolver.upscale_slice(image(40, 40, 1))
    resolver.upscale_slice(image(20, 40))
    resolver.upscale_slice(image(40, 40, 2))


def test_a_slice_beyond_the_budget_is_refused_with_what_to_do(generator: SRGenerator) -> None:
    resolver = SliceResolver(generator, CPU, max_memory=10**6)
    with pytest.raises(UserError, match=r"a slice of 24x20 pixels takes at least .* --max_memory"):
        resolver.upscale_slice(image(20, 24))


def test_without_a_budget_a_share_of_the_free_memory_is_taken(
    generator: SRGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models.inference.slice_resolver, "free_memory", lambda device: 10**9)
    resolver = SliceResolver(generator, CPU)
    assert resolver.max_memory == resolver.free_budget() == 6 * 10**8
    # It stays while free memory changes: the same slice gives the same bits.
    monkeypatch.setattr(models.inference.slice_resolver, "free_memory", lambda device: 10**3)
    resolver.upscale_slice(image(20, 24))
    assert resolver.max_memory == 6 * 10**8
    # What the maps hold is as good as free.
    assert resolver.free_budget() == int(0.6 * (10**3 + resolver.engine.held_bytes()))


def failing(
    original: Callable[..., Tensor], failures: list[Exception]
) -> tuple[Callable[..., Tensor], list[int]]:
    """An engine's `enlarge` that first raises these errors, and the kept maps of each call."""
    kept_levels: list[int] = []

    def enlarge(images: Tensor, norms: NormSource, kept: int, *others: object) -> Tensor:
        kept_levels.append(kept)
        if failures:
            raise failures.pop(0)
        return original(images, norms, kept, *others)

    return enlarge, kept_levels


@pytest.mark.parametrize(
    "error",
    [RuntimeError(NO_MEMORY), MemoryError(), torch.OutOfMemoryError("CUDA out of memory")],
)
@pytest.mark.parametrize("times", [1, 2])
def test_out_of_memory_is_tried_again_with_fewer_maps(
    generator: SRGenerator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    times: int,
) -> None:
    resolver = SliceResolver(generator, CPU)
    values = image(20, 24)
    resolver.upscale_slice(values)
    enlarge, kept = failing(resolver.engine.enlarge, [error] * times)
    released = []
    original = resolver.engine.release

    def release() -> None:
        released.append(len(kept))
        original()

    monkeypatch.setattr(resolver.engine, "enlarge", enlarge)
    monkeypatch.setattr(resolver.engine, "release", release)
    found = resolver.upscale_slice(values)
    np.testing.assert_allclose(found, forward_slice(generator, values), atol=1e-5)
    assert kept == [2, 1, 0][: times + 1]
    assert released == [1, 2][:times]
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert lines == [
        f"out of memory: trying again, maps of the tail kept: {left}" for left in (1, 0)[:times]
    ]
    resolver.upscale_slice(values)
    assert kept[times + 1 :] == [2 - times]  # what failed once is not tried at each slice
    assert capsys.readouterr().err == ""


def test_out_of_memory_is_tried_again_a_bounded_number_of_times(
    generator: SRGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = SliceResolver(generator, CPU)
    enlarge, kept = failing(resolver.engine.enlarge, [RuntimeError(NO_MEMORY)] * 99)
    monkeypatch.setattr(resolver.engine, "enlarge", enlarge)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        resolver.upscale_slice(image(20, 24))
    assert kept == [2, 1, 0]


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("no")])
def test_another_error_is_not_tried_again(
    generator: SRGenerator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    resolver = SliceResolver(generator, CPU)
    enlarge, kept = failing(resolver.engine.enlarge, [error])
    monkeypatch.setattr(resolver.engine, "enlarge", enlarge)
    with pytest.raises(type(error), match=str(error)):
        resolver.upscale_slice(image(20, 24))
    assert kept == [2]
    assert capsys.readouterr().err == ""


def test_measuring_is_tried_again_without_counting_a_norm_twice(
    generator: SRGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = SliceResolver(generator, CPU)
    expected = resolver.measure_slice(image(20, 24))
    original, failures = resolver.engine.measure_norms, [MemoryError()]

    def measure(images: Tensor, norms: NormSource, kept: int) -> None:
        original(images, norms, kept)
        if failures:
            raise failures.pop()

    monkeypatch.setattr(resolver.engine, "measure_norms", measure)
    assert_moments(resolver.measure_slice(image(20, 24)), list(expected))


# Precision and backend


def test_bf16_is_near_fp32(generator: SRGenerator) -> None:
    values = image(24, 24)
    exact = SliceResolver(generator, CPU).upscale_slice(values)
    rough = SliceResolver(generator, CPU, "bf16").upscale_slice(values)
    assert 0 < np.abs(exact - rough).mean() < 0.05


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_fp32_is_as_exact_as_was_asked(
    generator: SRGenerator, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """As on a GPU, whose flags are there without one."""
    resolver = SliceResolver(generator, CPU)
    resolver.precision = precision
    seen = []
    for name in ("enlarge", "measure_norms"):
        original = getattr(resolver.engine, name)

        def watched(*arguments: object, original: Callable[..., object] = original) -> object:
            seen.append((torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32))
            return original(*arguments)

        monkeypatch.setattr(resolver.engine, name, watched)
    monkeypatch.setattr(
        models.inference.slice_resolver,
        "fp32_convolutions",
        lambda device, rounded: fp32_convolutions(torch.device("cuda"), rounded),
    )
    resolver.upscale_slice(image(8, 8))
    resolver.measure_slice(image(8, 8))
    assert seen == [(True, precision == "tf32")] * 2


def test_torch_serves_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.inference.openvino_trunk, "openvino_available", lambda: False)
    for device in (CPU, torch.device("cuda:0")):
        assert choose_backend("torch", device) == "torch"
        assert choose_backend("auto", device) == "torch"


def test_auto_takes_openvino_where_it_can_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.setattr(models.inference.openvino_trunk, "openvino_available", lambda: True)
    for name in ("auto", "openvino"):
        assert choose_backend(name, CPU) == "openvino"
    assert choose_backend("auto", torch.device("cuda:0")) == "torch"
    assert choose_backend("torch", CPU) == "torch"


def test_openvino_that_cannot_serve_is_refused_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(models.inference.openvino_trunk, "openvino_available", lambda: True)
    message = "--backend openvino: OpenVINO serves the CPU only, and cuda:0 .*--backend torch"
    with pytest.raises(UserError, match=message):
        choose_backend("openvino", torch.device("cuda:0"))
    monkeypatch.setattr(models.inference.openvino_trunk, "openvino_available", lambda: False)
    message = "--backend openvino: the package openvino is not installed: pip install openvino"
    with pytest.raises(UserError, match=message):
        choose_backend("openvino", CPU)
    monkeypatch.setattr(models.inference.openvino_trunk, "openvino_available", lambda: True)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    with pytest.raises(UserError, match=r"ONEDNN_MAX_CPU_ISA is set, .*--backend torch"):
        choose_backend("openvino", CPU)
    assert choose_backend("auto", CPU) == "torch"


# Texture


def textured_generator(times: int = 2) -> SRGenerator:
    return small_generator(times, norm="none", skip="cubic", texture=3)


def drawn_slice(
    generator: SRGenerator, values: np.ndarray, share: float, index: int = 0, draw: int = 0
) -> np.ndarray:
    noise = torch.from_numpy(slice_noise(3, (values.shape[0], values.shape[1]), index, draw))
    with torch.inference_mode():
        result = generator(torch.from_numpy(values)[None, None], noise[None], share)
    drawn: np.ndarray = result[0, 0].numpy()
    return drawn


@pytest.mark.parametrize("backend", ["torch", "openvino"])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_texture_is_the_generators(share: float, backend: str) -> None:
    generator, values = textured_generator(), image(40, 23)
    resolver = SliceResolver(generator, CPU, backend=backend, texture=share)
    (found,) = resolver.upscale_slices([SliceJob(values, index=5)])
    assert found is not None
    np.testing.assert_allclose(found, drawn_slice(generator, values, share, 5), atol=1e-5)


def test_no_texture_leaves_the_best_estimate_to_the_last_bit() -> None:
    generator, values = textured_generator(), image(40, 23)
    plain = small_generator(2, norm="none", skip="cubic")
    plain.load_state_dict({name: generator.state_dict()[name] for name in plain.state_dict()})
    best = SliceResolver(plain, CPU).upscale_slice(values)
    assert np.array_equal(SliceResolver(generator, CPU).upscale_slice(values), best)


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_texture_does_not_depend_on_bands_and_crops(kept: int) -> None:
    generator, values = textured_generator(), image(90, 70)
    resolver = SliceResolver(generator, CPU, texture=1.0)
    resolver.max_memory = resolver.memory.needed(values.size, kept)
    resolver.engine.band_values = 1 << 10
    needed = disc(90, 70, 50, 40, 4)
    inside, expected = enlarged(needed, 4), drawn_slice(generator, values, 1.0)
    found = resolver.upscale_slice(values, needed=needed)
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-5)
    assert not found[:, :20].any()  # the crop left it out
    np.testing.assert_allclose(resolver.upscale_slice(values), expected, atol=1e-5)
    assert resolver.engine.held_bytes() == values.size * 4 * (3 * 8 + [0, 16, 16 + 32][kept])


def test_slices_that_share_a_call_have_their_own_texture() -> None:
    generator = textured_generator()
    resolver = SliceResolver(generator, CPU, texture=0.7)
    jobs = [SliceJob(image(12, 9, seed), index=seed) for seed in range(4)]
    for index, found in enumerate(resolver.upscale_slices(jobs)):
        assert found is not None
        expected = drawn_slice(generator, image(12, 9, index), 0.7, index)
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_draws_are_of_full_share_and_differ(backend: str) -> None:
    generator, values = textured_generator(), image(30, 21)
    resolver = SliceResolver(generator, CPU, backend=backend, texture=0.2)
    needed = disc(30, 21, 12, 10, 5)
    for draw, found in enumerate(resolver.upscale_draws(SliceJob(values, None, needed, 2), 3)):
        inside = enlarged(needed, 4)
        expected = drawn_slice(generator, values, 1.0, 2, draw)
        np.testing.assert_allclose(found[inside], expected[inside], atol=1e-5)


def test_jobs_of_other_shares_do_not_share_a_call() -> None:
    generator = textured_generator()
    values = image(12, 9)
    jobs = [SliceJob(values, texture=share) for share in (0.0, 0.0, 1.0, 0.5, None)]
    shares = (0.0, 0.0, 1.0, 0.5, 0.2)
    found = SliceResolver(generator, CPU, texture=0.2).upscale_slices(jobs)
    for one, share in zip(found, shares, strict=True):
        assert one is not None
        np.testing.assert_allclose(one, drawn_slice(generator, values, share), atol=1e-5)


def test_noise_counts_in_the_memory_of_a_slice() -> None:
    plain = SliceResolver(small_generator(2, norm="none", skip="cubic"), CPU).memory
    textured = SliceResolver(textured_generator(), CPU).memory
    assert textured.needed(1000, 2) - plain.needed(1000, 2) == 1000 * 3 * (4 + 4)


def test_a_slice_too_small_for_the_network_has_texture() -> None:
    resolver = SliceResolver(textured_generator(), CPU, texture=1.0)
    assert resolver.upscale_slice(image(2, 3)).shape == (8, 12)


def test_texture_that_a_generator_does_not_have_is_refused(generator: SRGenerator) -> None:
    assert not SliceResolver(generator, CPU).has_texture
    with pytest.raises(UserError, match="no texture layers"):
        SliceResolver(generator, CPU, texture=0.5)
    with pytest.raises(UserError, match="no texture layers"):
        list(SliceResolver(generator, CPU).upscale_slices([SliceJob(image(8, 8), texture=1.0)]))
    with pytest.raises(UserError, match="no texture layers"):
        list(SliceResolver(generator, CPU).upscale_draws(SliceJob(image(8, 8)), 2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"texture": 1.5}, "texture is 1.5, expected 0"), ({"texture": 1.0, "tile_size": 8}, "tiles")],
)
def test_texture_that_cannot_be_given_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SliceResolver(textured_generator(), CPU, **settings)
