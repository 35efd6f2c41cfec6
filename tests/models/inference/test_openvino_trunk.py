from __future__ import annotations

import copy
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_helpers import CPU, forward, image, images, scoped_reference, small_generator

from models.inference.norm_scope import PixelWeights, scope_weights
from models.inference.openvino_trunk import OpenVinoTrunk, choose_backend
from models.inference.super_resolver import SuperResolver
from models.networks import SRGenerator

pytest_plugins = ["engine_fixtures"]
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(
        choose_backend("auto", CPU) != "openvino", reason="OpenVINO is missing or held back"
    ),
]

TOLERANCE = 1e-3 * 2  # of the range [-1, 1]
SIZES = [(16, 16), (23, 31), (4, 4), (64, 9)]


@pytest.fixture(scope="module")
def generator() -> SRGenerator:
    return small_generator(2, blocks=2)


@pytest.fixture(scope="module")
def trunk(generator: SRGenerator) -> OpenVinoTrunk:
    """Module-wide, since compiling takes longest."""
    return OpenVinoTrunk(generator)


def disc(rows: int, columns: int) -> np.ndarray:
    y, x = np.mgrid[:rows, :columns]
    mask: np.ndarray = np.hypot((y - rows / 2) / rows, (x - columns / 3) / columns) < 0.3
    return mask


def features(generator: SRGenerator, values: torch.Tensor) -> torch.Tensor:
    return forward(generator.model[: 4 + 2 + 4], values)


def test_one_compiled_model_serves_every_size(trunk: OpenVinoTrunk, generator: SRGenerator) -> None:
    for size in SIZES:
        for count in (1, 3):
            values = images(count, *size)
            found = trunk(values, None)
            assert found.shape == (count, 8, *size)
            torch.testing.assert_close(found, features(generator, values), atol=1e-3, rtol=1e-3)
    assert len(trunk._requests) == 1


def test_a_scope_of_everything_is_no_scope(trunk: OpenVinoTrunk, generator: SRGenerator) -> None:
    values = images(1, 20, 24)
    found = trunk(values, PixelWeights(torch.ones(1, 1, 20, 24)))
    torch.testing.assert_close(found, features(generator, values), atol=1e-3, rtol=1e-3)


def test_scoped_and_plain_slices_may_alternate(
    trunk: OpenVinoTrunk, generator: SRGenerator
) -> None:
    values = images(1, 40, 44)
    plain = trunk(values, None).clone()
    scoped = trunk(values, scope_weights(disc(40, 44), CPU)).clone()
    assert float((plain - scoped).abs().max()) > 1e-2
    assert torch.equal(trunk(values, None), plain)
    torch.testing.assert_close(
        trunk(values, scope_weights(disc(40, 44), CPU)), scoped, atol=1e-6, rtol=0
    )


def test_the_generator_and_the_input_are_not_changed() -> None:
    generator = small_generator()
    modules = [type(module) for module in generator.modules()]
    weights = copy.deepcopy(generator.state_dict())
    values = images(1, 16, 16)
    before = values.clone()
    OpenVinoTrunk(generator)(values, scope_weights(disc(16, 16), CPU))
    assert [type(module) for module in generator.modules()] == modules
    assert all(torch.equal(value, weights[key]) for key, value in generator.state_dict().items())
    assert torch.equal(values, before)


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_openvino_equals_torch_with_and_without_scope(norm: str) -> None:
    generator = small_generator(2, blocks=2, norm=norm)
    resolver = SuperResolver(generator, CPU, backend="openvino")
    assert resolver.backend == "openvino"
    torch_alone = SuperResolver(generator, CPU)
    for size in ((48, 60), (70, 41)):
        values = image(*size)
        for scope in (None, disc(*size)):
            found = resolver.upscale_slice(values, scope, scope)
            expected = torch_alone.upscale_slice(values, scope, scope)
            np.testing.assert_allclose(found, expected, atol=TOLERANCE)


@pytest.mark.slow
def test_openvino_takes_the_statistics_of_the_masked_pixels(generator: SRGenerator) -> None:
    values, mask = image(48, 60), np.zeros((48, 60), dtype=bool)
    mask[4:40, 8:50] = True
    found = SuperResolver(generator, CPU, backend="openvino").upscale_slice(values, mask)
    np.testing.assert_allclose(found, scoped_reference(generator, values, mask), atol=TOLERANCE)


def test_statistics_of_a_volume_reach_every_layer(generator: SRGenerator) -> None:
    """OpenVINO's graph knows no given statistics, so they are left to torch."""
    results: list[np.ndarray] = []
    for backend in ("torch", "openvino"):
        resolver = SuperResolver(generator, CPU, backend=backend)
        resolver.use_statistics([resolver.measure_slice(image(20, 24, seed)) for seed in (1, 2)])
        results.append(resolver.upscale_slice(image(20, 24)))
    assert np.array_equal(results[0], results[1])


def test_slices_one_after_the_other_keep_apart(generator: SRGenerator) -> None:
    """The trunk's memory is overwritten by its next call."""
    resolver = SuperResolver(generator, CPU, backend="openvino")
    for size, seeds in (((12, 10), range(3)), ((9, 9), range(2))):
        for seed in seeds:
            values = image(*size, seed)
            expected = SuperResolver(generator, CPU).upscale_slice(values)
            np.testing.assert_allclose(resolver.upscale_slice(values), expected, atol=TOLERANCE)


def test_half_precision_is_near_full_precision(generator: SRGenerator) -> None:
    values = image(24, 24)
    exact = SuperResolver(generator, CPU).upscale_slice(values)
    rough = SuperResolver(generator, CPU, "bf16", backend="openvino").upscale_slice(values)
    assert 0 < np.abs(exact - rough).mean() < 0.05


def from_cache(trunk: OpenVinoTrunk) -> bool:
    (request,) = trunk._requests.values()
    found: bool = request.get_compiled_model().get_property("LOADED_FROM_CACHE")
    return found


@pytest.mark.slow
def test_compiled_models_are_kept_on_disk(tmp_path: Path) -> None:
    generator = small_generator()
    values = images(1, 16, 16)

    def listing() -> dict[str, int]:
        return {p.name: p.stat().st_mtime_ns for p in (tmp_path / "openvino").iterdir()}

    first = OpenVinoTrunk(generator, cache_dir=tmp_path)
    expected = first(values, None).clone()
    written = listing()
    assert written
    assert not from_cache(first)
    second = OpenVinoTrunk(generator, cache_dir=tmp_path)
    torch.testing.assert_close(second(values, None), expected, atol=1e-6, rtol=0)
    assert from_cache(second)
    assert listing() == written
    # Other weights are another model.
    with torch.no_grad():
        next(generator.model[1].parameters()).mul_(1.5)
    third = OpenVinoTrunk(generator, cache_dir=tmp_path)
    found = third(values, None)
    assert not from_cache(third)
    torch.testing.assert_close(found, forward(generator.model[:9], values), atol=1e-3, rtol=1e-3)


@pytest.mark.slow
def test_compiling_says_nothing() -> None:
    trunk = OpenVinoTrunk(small_generator())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trunk(images(1, 16, 16), None)
        trunk(images(1, 16, 16), scope_weights(disc(16, 16), CPU))


COMPILES = """
import torch
from models.inference.openvino_trunk import OpenVinoTrunk
from models.networks import SRGenerator

OpenVinoTrunk(SRGenerator(1, 2, 1))(torch.zeros(1, 1, 16, 16), None)
from openvino.tools.ovc.telemetry_utils import tm

print(tm.__name__)
"""


def test_nobody_is_told_that_it_is_used(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    told = subprocess.run(
        [sys.executable, "-c", COMPILES],
        env={**environment, "HOME": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert told.stdout == "openvino.tools.ovc.telemetry_stub\n"
    assert not (tmp_path / "intel").exists()


def test_without_a_folder_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    OpenVinoTrunk(small_generator())(images(1, 16, 16), None)
    assert list(tmp_path.iterdir()) == []


def test_the_package_is_not_loaded_before_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "openvino"]:
        monkeypatch.delitem(sys.modules, name)
    SuperResolver(small_generator(), CPU, backend="openvino")
    assert "openvino" not in sys.modules
