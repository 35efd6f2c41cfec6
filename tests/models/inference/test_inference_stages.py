from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from engine_helpers import CPU, forward, images, small_generator
from torch import Tensor, nn

from models.inference.stages import PreparedStage, PreparedStages, prepare_stages
from models.networks import SRGenerator

pytest_plugins = ["engine_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")


def read(generator: SRGenerator) -> PreparedStages:
    return prepare_stages(generator, CPU, torch.float32)


def in_order(stages: PreparedStages) -> Iterator[PreparedStage]:
    """Every stage but the output, first to last."""
    yield stages.stem
    for pair in stages.blocks:
        yield from pair
    yield stages.merge
    yield from stages.upsampling


@pytest.mark.parametrize("times", [1, 2, 3, 4])
@pytest.mark.parametrize("blocks", [1, 3])
def test_every_convolution_is_one_stage(times: int, blocks: int) -> None:
    generator = small_generator(times, ngf=16, blocks=blocks)
    stages = read(generator)
    assert len(stages.blocks) == blocks
    widths = [2 * 16 // 2**step for step in range(times)]
    assert [stage.channels for stage in in_order(stages)] == [16] * (2 * blocks + 2) + widths
    convolutions = [m for m in generator.modules() if isinstance(m, nn.Conv2d)]
    for stage, convolution in zip(in_order(stages), convolutions[:-1], strict=True):
        assert torch.equal(stage.weight, convolution.weight)
        assert convolution.bias is not None
        assert torch.equal(stage.bias, convolution.bias)


def test_padding_is_that_of_each_place() -> None:
    stages = read(small_generator(3, blocks=2))
    found = [(stage.padding, stage.reflect) for stage in in_order(stages)]
    assert found == [(3, True)] + [(1, True)] * 5 + [(1, False)] * 3
    # The shuffle behind a doubling is done where the next stage reads.
    assert [stage.shuffled for stage in in_order(stages)] == [False] * 7 + [True] * 2


def test_each_activation_keeps_its_own_slope() -> None:
    generator = small_generator(3, blocks=2)
    slopes = [float(m.weight.detach()) for m in generator.modules() if isinstance(m, nn.PReLU)]
    assert len(set(slopes)) == 5
    stages = read(generator)
    assert [stage.slope for stage in (stages.stem, stages.merge, *stages.upsampling)] == slopes
    # A residual block has a ReLU between its convolutions and none behind the sum.
    assert [(first.slope, second.slope) for first, second in stages.blocks] == [(0.0, None)] * 2


def test_instance_norm_is_told_by_its_eps() -> None:
    for norm, eps in (("instance", 1e-5), ("batch", None), ("none", None)):
        stages = read(small_generator(norm=norm))
        assert {stage.eps for stage in in_order(stages)} == {eps}
        assert {stage.fixed is None for stage in in_order(stages)} == {norm != "batch"}


def test_batch_norm_becomes_the_scale_and_shift_of_its_running_statistics() -> None:
    generator = small_generator(norm="batch")
    norms = [m for m in generator.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm, stage in zip(norms, in_order(read(generator)), strict=True):
        values = torch.randn(2, stage.channels, 5, 6)
        assert stage.fixed is not None
        scale, shift = stage.fixed
        assert scale.dtype == shift.dtype == torch.float32
        with torch.no_grad():
            torch.testing.assert_close(values * scale + shift, norm(values), atol=1e-5, rtol=1e-5)


def apply(stage: PreparedStage, values: Tensor) -> Tensor:
    """A stage as its attributes describe it, on a whole map."""
    if stage.shuffled:
        values = F.pixel_shuffle(values, 2)
    values = F.pad(values, [stage.padding] * 4, mode="reflect" if stage.reflect else "constant")
    values = F.conv2d(values, stage.weight, stage.bias)
    if stage.eps is not None:
        values = F.instance_norm(values, eps=stage.eps)
    if stage.fixed is not None:
        values = values * stage.fixed[0] + stage.fixed[1]
    return values if stage.slope is None else F.leaky_relu(values, stage.slope)


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_stages_one_after_the_other_are_the_generator(norm: str) -> None:
    generator = small_generator(3, blocks=2, norm=norm)
    stages = read(generator)
    values = images(2, 12, 9)
    with torch.inference_mode():
        level = apply(stages.stem, values)
        for first, second in stages.blocks:
            level = level + apply(second, apply(first, level))
        for stage in (stages.merge, *stages.upsampling):
            level = apply(stage, level)
        result = stages.output(level, 2, 2)
    torch.testing.assert_close(result, forward(generator, values), atol=1e-5, rtol=0)


def test_weights_have_the_type_and_format_asked_for() -> None:
    stages = prepare_stages(small_generator(), CPU, torch.bfloat16)
    for stage in in_order(stages):
        assert stage.weight.dtype == stage.bias.dtype == torch.bfloat16
        assert stage.weight.is_contiguous(memory_format=torch.channels_last)
    assert stages.output.kernel.dtype == torch.bfloat16
    # Norms stay in float32.
    fixed = prepare_stages(small_generator(norm="batch"), CPU, torch.bfloat16)
    assert all(stage.fixed and stage.fixed[0].dtype == torch.float32 for stage in in_order(fixed))


def test_the_generator_is_not_changed() -> None:
    generator = small_generator()
    before = copy.deepcopy(generator.state_dict())
    prepare_stages(generator, CPU, torch.bfloat16)
    for key, value in generator.state_dict().items():
        assert torch.equal(value, before[key])
        assert value.dtype == before[key].dtype


def test_batch_norm_without_running_statistics_is_refused() -> None:
    generator = small_generator()
    generator.model[2] = nn.BatchNorm2d(8, track_running_stats=False)
    with pytest.raises(ValueError, match="batch norm with running statistics, got BatchNorm2d"):
        read(generator)
