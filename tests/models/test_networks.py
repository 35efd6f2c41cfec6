from __future__ import annotations

import pytest
import torch

from models.checkpoints.checkpoint import recognise_generator
from models.discriminators import PatchDiscriminator
from models.line_filters import enlarge_cubic
from models.networks import (
    DownsamplingGenerator,
    SRGenerator,
    count_parameters,
    initialise,
    make_norm,
)


def test_published_parameter_counts() -> None:
    assert count_parameters(SRGenerator(3)) == 802_222
    assert count_parameters(DownsamplingGenerator(3)) == 12_936_769


@pytest.mark.parametrize("sampling_times", [1, 2, 3, 4])
@torch.no_grad()
def test_generators_scale_by_two_to_the_n(sampling_times: int) -> None:
    scale = 2**sampling_times
    clinical = torch.zeros(2, 1, 8, 12)
    enlarged = SRGenerator(sampling_times, ngf=16, blocks=1)(clinical)
    assert enlarged.shape == (2, 1, 8 * scale, 12 * scale)
    shrunk = DownsamplingGenerator(sampling_times, ngf=2, blocks=1)(enlarged)
    assert shrunk.shape == clinical.shape
    assert float(enlarged.abs().max()) <= 1
    assert float(shrunk.abs().max()) <= 1


def test_state_dict_keys_follow_the_published_layout() -> None:
    keys = list(SRGenerator(3, ngf=8).state_dict())
    assert keys[:5] == [
        "model.1.weight",
        "model.1.bias",
        "model.3.weight",
        "model.4.conv_block.1.weight",
        "model.4.conv_block.1.bias",
    ]
    assert keys[-3:] == ["model.28.weight", "model.30.weight", "model.30.bias"]
    assert "model.35.weight" in DownsamplingGenerator(3, ngf=8).state_dict()


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
@pytest.mark.parametrize(("sampling_times", "ngf", "blocks"), [(1, 4, 6), (2, 8, 9), (3, 16, 6)])
def test_architecture_is_recognised_by_shapes(
    sampling_times: int, ngf: int, blocks: int, norm: str
) -> None:
    generator = SRGenerator(sampling_times, ngf, blocks, norm)
    found = recognise_generator(generator.state_dict())
    expected = dict(generator.architecture)
    if norm == "none":  # leaves the same keys as instance norm
        expected["norm"] = "instance"
    assert found == expected
    SRGenerator(**found).load_state_dict(generator.state_dict())  # type: ignore[arg-type]


def test_other_weights_are_not_taken_for_a_generator() -> None:
    with pytest.raises(ValueError, match=r"it lacks model\.1\.weight, and begins with"):
        recognise_generator(PatchDiscriminator(4).state_dict())
    with pytest.raises(ValueError, match="not those of an SR generator"):
        recognise_generator(DownsamplingGenerator(2, 4, 2).state_dict())


def test_a_skip_keeps_the_published_names_and_adds_to_the_cubic_enlargement() -> None:
    plain, skipping = SRGenerator(2, 8, 1), SRGenerator(2, 8, 1, "none", "cubic")
    assert list(skipping.state_dict()) == list(plain.state_dict())
    ramp = torch.linspace(-0.9, 0.9, 12).expand(1, 1, 12, 12)
    with torch.no_grad():
        layers, image = skipping.model(ramp), skipping(ramp)
    assert torch.equal(image, layers + enlarge_cubic(ramp, 4))


def test_overshoots_are_cut_off_in_evaluation_only() -> None:
    generator = SRGenerator(1, 4, 1, "none", "cubic")
    edge = torch.ones(1, 1, 8, 8)
    edge[..., :4] = -1
    with torch.no_grad():
        generator.state_dict()["model.14.bias"].fill_(0.5)
        assert float(generator(edge).max()) > 1.4
        assert float(generator.eval()(edge).max()) == 1
        assert float(generator.eval()(edge).min()) >= -1


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="norm is 'layer'"):
        make_norm("layer", 4)
    with pytest.raises(ValueError, match="init_type is 'zeros'"):
        initialise(SRGenerator(1, 4, 1), "zeros")
    with pytest.raises(ValueError, match="multiple of the scale 8"):
        SRGenerator(3, ngf=12)
