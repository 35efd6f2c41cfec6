"""--export: G_A as an ONNX file that other programs run."""

from __future__ import annotations

import json
import sys
from argparse import Namespace

from methods.loading import load_model
from methods.onnx_export import write_onnx


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
    print(
        f"wrote {options.export}: input `clinical` (N, 1, H, W) in [-1, 1], output `micro` "
        f"(N, 1, {model.scale} H, {model.scale} W); windows and scale are in its metadata"
    )
    return 0
