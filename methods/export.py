"""--export: G_A as an ONNX file that other programs run."""

from __future__ import annotations

import json
import sys
import warnings
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

import torch

from methods.loading import load_model
from models.networks import SRGenerator
from util.errors import UserError
from util.files import atomic_path

OPSET = 17  # understood by ONNX Runtime from 1.12, OpenVINO and TensorRT alike
TRACED_EDGE = 16


def write_onnx(
    generator: SRGenerator,
    path: str | Path,
    metadata: Mapping[str, str],
    overwrite: bool = False,
) -> None:
    """Write the generator as ONNX: `clinical` (N, 1, H, W) to `micro`, both in [-1, 1].

    With texture layers the graph also takes `noise` (N, channels, H, W), standard normal, and
    `texture`, one number from 0 (the best estimate) to 1.

    The graph is the published network on a whole image: its instance norms take their statistics
    from all pixels that are given.

    Args:
        generator: in evaluation mode.
        path: file to write.
        metadata: stored in the file.
        overwrite: whether an existing file may be replaced.

    Raises:
        UserError: the file exists, cannot be written, or the package onnx is missing.
    """
    try:
        import onnx
    except ImportError as error:
        raise UserError("--export needs the package onnx: pip install onnx") from error
    if Path(path).exists() and not overwrite:
        raise UserError(f"{path} exists already: --overwrite replaces it, or give another name")
    device = next(generator.parameters()).device
    clinical = torch.zeros(1, 1, TRACED_EDGE, TRACED_EDGE, device=device)
    inputs = {"clinical": clinical}
    axes = {
        "clinical": {0: "n", 2: "height", 3: "width"},
        "micro": {0: "n", 2: "micro_height", 3: "micro_width"},
    }
    if channels := int(generator.architecture["texture"]):
        inputs |= {"noise": clinical.repeat(1, channels, 1, 1), "texture": clinical.new_ones(())}
        axes["noise"] = axes["clinical"]
    with atomic_path(path, shared=True) as partial, warnings.catch_warnings():
        # torch's older exporter writes this graph as it is; the newer needs a further package.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            generator,
            tuple(inputs.values()),
            str(partial),
            dynamo=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=["micro"],
            dynamic_axes=axes,
        )
        model = onnx.load(str(partial))
        onnx.helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model)
        onnx.save(model, str(partial))


def export_onnx(options: Namespace) -> int:
    """Write the model that the options name to --export; returns the exit code."""
    model = load_model(options)
    metadata = {
        "scale": str(model.scale),
        "weights": model.loaded.digest,
        "windows": json.dumps(model.windows.as_dict()),
        "norm_statistics": "of the whole image that is given",
    }
    write_onnx(model.loaded.generator, options.export, metadata, options.overwrite)
    if model.lung_statistics:
        print(
            "warning: this model was trained inside the lung, while the graph takes its norm "
            "statistics from the whole image: give it images of lung alone",
            file=sys.stderr,
        )
    texture = ""
    if model.resolver.has_texture:
        channels = model.loaded.generator.architecture["texture"]
        texture = (
            f", `noise` (N, {channels}, H, W) of standard deviation 1 and `texture`, a number "
            "from 0, the best estimate, to 1"
        )
    print(
        f"wrote {options.export}: input `clinical` (N, 1, H, W) in [-1, 1]{texture}, output "
        f"`micro` (N, 1, {model.scale} H, {model.scale} W); windows and scale are in its metadata"
    )
    return 0
