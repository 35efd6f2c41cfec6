from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from methods.export import write_onnx
from models.networks import SRGenerator, initialise
from util.errors import UserError

pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def generator() -> SRGenerator:
    torch.manual_seed(0)
    network = SRGenerator(2, ngf=8, blocks=2)
    initialise(network)
    return network.eval()


@pytest.mark.parametrize("skip", ["none", "cubic"])
def test_the_file_gives_torchs_numbers_at_any_size(skip: str, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    torch.manual_seed(0)
    generator = SRGenerator(2, ngf=8, blocks=2, skip=skip)
    initialise(generator)
    generator.eval()
    path = tmp_path / "model.onnx"
    write_onnx(generator, path, {"scale": "4"})
    model = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for shape in ((1, 1, 16, 16), (1, 1, 33, 20), (2, 1, 7, 48)):
        values = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
        with torch.no_grad():
            expected = generator(torch.from_numpy(values)).numpy()
        found = model(values)[0]
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_noise_and_share_of_texture_are_inputs(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    torch.manual_seed(0)
    generator = SRGenerator(1, 8, 2, "none", "cubic", texture=3).eval()
    path = tmp_path / "model.onnx"
    write_onnx(generator, path, {"scale": "2"})
    model = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert [one.any_name for one in model.inputs] == ["clinical", "noise", "texture"]
    image, noise = torch.rand(2, 1, 20, 13) - 0.5, torch.randn(2, 3, 20, 13)
    for share in (0.0, 0.4, 1.0):
        with torch.no_grad():
            expected = generator(image, noise, share).numpy()
        found = model([image.numpy(), noise.numpy(), np.float32(share)])[0]
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_names_and_metadata(generator: SRGenerator, tmp_path: Path) -> None:
    import onnx

    path = tmp_path / "model.onnx"
    write_onnx(generator, path, {"scale": "4", "windows": "{}"})
    model = onnx.load(str(path))
    assert [value.name for value in model.graph.input] == ["clinical"]
    assert [value.name for value in model.graph.output] == ["micro"]
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    assert [size.dim_param for size in sizes] == ["n", "", "height", "width"]
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        "scale": "4",
        "windows": "{}",
    }


def test_an_existing_file_is_kept_unless_told(generator: SRGenerator, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    with pytest.raises(UserError, match="exists already: --overwrite replaces it"):
        write_onnx(generator, path, {})
    assert path.read_bytes() == b"old"
    write_onnx(generator, path, {}, overwrite=True)
    assert path.stat().st_size > 1000
