from __future__ import annotations

import numpy as np
import pytest
import torch

from models.inference.case_enlarger import (
    DRAWS,
    ORIENTATIONS,
    CaseEnlarger,
    turn,
    turn_back,
    turn_job,
)
from models.inference.slice_jobs import SliceJob
from models.inference.super_resolver import SuperResolver
from models.networks import SRGenerator, initialise


@pytest.fixture
def resolver() -> SuperResolver:
    torch.manual_seed(0)
    generator = SRGenerator(1, ngf=4, blocks=1)
    initialise(generator)
    return SuperResolver(generator.eval(), torch.device("cpu"))


def image(rows: int = 17, columns: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (rows, columns)).astype(np.float32)


def oriented(resolver: SuperResolver, values: np.ndarray) -> np.ndarray:
    return np.stack(
        [turn_back(resolver.upscale_slice(turn(values, o)), o) for o in range(ORIENTATIONS)]
    )


def test_eight_orientations_differ_and_can_be_undone() -> None:
    values = image()
    turned = [turn(values, orientation) for orientation in range(ORIENTATIONS)]
    assert len({(part.shape, part.tobytes()) for part in turned}) == ORIENTATIONS
    np.testing.assert_array_equal(turned[0], values)
    for orientation, part in enumerate(turned):
        np.testing.assert_array_equal(turn_back(part, orientation), values)


def test_a_job_is_turned_with_its_masks() -> None:
    job = SliceJob(image(), image(seed=1) > 0, image(seed=2) > 0)
    turned = turn_job(job, 5)
    assert turned.scope is not None
    assert turned.needed is not None
    assert job.scope is not None
    assert job.needed is not None
    np.testing.assert_array_equal(turned.scope, turn(job.scope, 5))
    np.testing.assert_array_equal(turned.needed, turn(job.needed, 5))


def test_mean_and_deviation_are_those_of_the_eight_results(resolver: SuperResolver) -> None:
    values = image()
    results = oriented(resolver, values)
    assert results.std(axis=0).mean() > 1e-3
    averaged = CaseEnlarger(resolver, self_ensemble=True, uncertainty=True)
    (enlarged,) = averaged.enlarge([SliceJob(values)])
    assert enlarged is not None
    assert enlarged.deviation is not None
    np.testing.assert_allclose(enlarged.unit, results.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(enlarged.deviation, results.std(axis=0), atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1)])
def test_a_slice_of_one_pixels_width_has_eight_orientations(
    resolver: SuperResolver, shape: tuple[int, int]
) -> None:
    values = image(*shape)
    averaged = CaseEnlarger(resolver, self_ensemble=True, uncertainty=True)
    (enlarged,) = averaged.enlarge([SliceJob(values)])
    assert enlarged is not None
    assert enlarged.deviation is not None
    results = oriented(resolver, values)
    np.testing.assert_allclose(enlarged.unit, results.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(enlarged.deviation, results.std(axis=0), atol=1e-5)


def test_uncertainty_alone_leaves_the_plain_result(resolver: SuperResolver) -> None:
    values = image()
    (enlarged,) = CaseEnlarger(resolver, uncertainty=True).enlarge([SliceJob(values)])
    assert enlarged is not None
    assert enlarged.deviation is not None
    np.testing.assert_array_equal(enlarged.unit, resolver.upscale_slice(values))
    (ensemble,) = CaseEnlarger(resolver, self_ensemble=True).enlarge([SliceJob(values)])
    assert ensemble is not None
    assert ensemble.deviation is None


def textured(tile_size: int | None = None) -> SuperResolver:
    torch.manual_seed(0)
    generator = SRGenerator(1, 4, 1, "none", "cubic", texture=2)
    return SuperResolver(generator.eval(), torch.device("cpu"), tile_size=tile_size)


def test_samples_give_the_mean_of_draws_and_their_deviation() -> None:
    resolver, job = textured(), SliceJob(image(), index=3)
    draws = np.stack(list(resolver.upscale_draws(job, 5)))
    assert draws.std(axis=0).mean() > 1e-3
    (none, enlarged) = CaseEnlarger(resolver, samples=5).enlarge([None, job])
    assert none is None
    assert enlarged is not None
    assert enlarged.deviation is not None
    np.testing.assert_allclose(enlarged.unit, draws.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(enlarged.deviation, draws.std(axis=0, ddof=1), atol=1e-5)


def test_uncertainty_of_a_model_with_texture_is_that_of_draws() -> None:
    resolver, job = textured(), SliceJob(image(), index=3)
    draws = np.stack(list(resolver.upscale_draws(job, DRAWS)))
    (enlarged,) = CaseEnlarger(resolver, uncertainty=True).enlarge([job])
    (plain,) = resolver.upscale_slices([job])
    assert enlarged is not None
    assert enlarged.deviation is not None
    assert plain is not None
    np.testing.assert_array_equal(enlarged.unit, plain)
    np.testing.assert_allclose(enlarged.deviation, draws.std(axis=0, ddof=1), atol=1e-5)


def test_tiles_have_the_spread_of_their_orientations() -> None:
    (enlarged,) = CaseEnlarger(textured(tile_size=8), uncertainty=True).enlarge([SliceJob(image())])
    results = oriented(textured(tile_size=8), image())
    assert enlarged is not None
    assert enlarged.deviation is not None
    np.testing.assert_allclose(enlarged.deviation, results.std(axis=0), atol=1e-5)


@pytest.mark.parametrize("self_ensemble", [False, True])
def test_gathered_statistics_make_slices_independent_of_their_own(
    resolver: SuperResolver, self_ensemble: bool
) -> None:
    """With pooled statistics, equal pixels in different slices give equal results."""
    first, second = image(64, 48), image(64, 48, seed=1)
    second[:32] = first[:32]
    second[56:] = 0.9
    enlarger = CaseEnlarger(resolver, self_ensemble)
    jobs = [SliceJob(first), None, SliceJob(second)]
    enlarger.gather(lambda: jobs)
    pooled = [part.unit for part in enlarger.enlarge(jobs) if part is not None]
    inside = slice(0, 2 * 20)  # farther from the difference than the network sees
    np.testing.assert_allclose(pooled[0][inside], pooled[1][inside], atol=1e-5)
    own = [part.unit for part in CaseEnlarger(resolver).enlarge(jobs) if part is not None]
    assert np.abs(own[0][inside] - own[1][inside]).max() > 1e-3
    # The next case starts without them.
    np.testing.assert_array_equal(resolver.upscale_slice(first), own[0])


def test_items_keep_their_order_and_none_stays_none(resolver: SuperResolver) -> None:
    items = [1, None, 3, None]
    enlarger = CaseEnlarger(resolver)
    found = list(
        enlarger.enlarge_items(
            items, lambda item: None if item is None else SliceJob(image(seed=item))
        )
    )
    assert [item for item, _ in found] == items
    assert [enlarged is None for _, enlarged in found] == [False, True, False, True]
