"""G_A's trunk through OpenVINO, which runs it faster on x86 processors than torch does.

The trunk, everything before the upsampling tail, is most of the arithmetic and works at the size of
the input. The tail stays with models/inference/slice_engine.py, which computes it in bounded
memory. The graph is traced on a 16x16 image with sizes left open, so that one compiled model serves
every slice; OpenVINO keeps the compiled form on disk, under the weights' hash.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.fused.statistics import SMALLEST_COUNT
from models.inference.norm_scope import PixelWeights
from models.networks import SRGenerator
from util.errors import UserError

TRACED_EDGE = 16
# Held to AVX2 so on a processor with AMX, OpenVINO 2026.4 gives NaN in bf16; torch is right there.
ONEDNN_LIMIT = "ONEDNN_MAX_CPU_ISA"


def _openvino() -> Any:
    """The package without its telemetry.

    That writes into the home folder, tells a server that the package is used, and forks to do so,
    by which numpy in another thread could stand still for ever (OpenVINO 2026.4).
    """
    # An import of it fails then, and OpenVINO takes its own stub.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


@cache
def _core() -> Any:
    """OpenVINO's runtime, one for the process.

    With OpenVINO 2026.4 a process that had made and dropped two of them crashed at its next SIGINT.
    """
    return _openvino().Core()


def openvino_available() -> bool:
    """Whether the package is installed (it is not imported here: that takes a second)."""
    return importlib.util.find_spec("openvino") is not None


def choose_backend(backend: str, device: torch.device) -> str:
    """Turn auto into openvino, where it can serve, or torch.

    Raises:
        UserError: openvino is asked for and cannot serve.
    """
    if backend == "torch":
        return backend
    reason = ""
    if device.type != "cpu":
        reason = f"OpenVINO serves the CPU only, and {device} is to compute: give --backend torch"
    elif not openvino_available():
        reason = "the package openvino is not installed: pip install openvino, or --backend torch"
    elif ONEDNN_LIMIT in os.environ:
        reason = (
            f"{ONEDNN_LIMIT} is set, under which it has given NaN: unset it, or --backend torch"
        )
    if reason and backend == "openvino":
        raise UserError(f"--backend openvino: {reason}")
    return "torch" if reason else "openvino"


class OpenVinoTrunk:
    """Callable (images, weights) -> features, for `SliceEngine.enlarge`.

    Args:
        generator: G_A in evaluation mode; not changed.
        precision: fp32 or bf16 (on a processor without bf16 OpenVINO emulates or ignores it).
        cache_dir: folder for compiled models; None keeps none.
    """

    def __init__(
        self, generator: SRGenerator, precision: str = "fp32", cache_dir: Path | None = None
    ) -> None:
        self._layers = copy.deepcopy(generator.trunk).eval()
        self._hint = {"fp32": "f32", "bf16": "bf16"}[precision]
        self._cache_dir = cache_dir
        # One graph for statistics of all pixels, one for those of weighted pixels: the first has
        # an operation of its own in OpenVINO. Each is compiled when it is first needed.
        self._requests: dict[bool, Any] = {}

    def __call__(self, images: Tensor, weights: PixelWeights | None) -> Tensor:
        """Compute the trunk.

        Args:
            images: float32 (N, 1, H, W) in [-1, 1] on the CPU.
            weights: pixels that the norm statistics are taken from; None for all.

        Returns:
            float32 (N, ngf, H, W); overwritten by the next call.
        """
        inputs = [images.contiguous().numpy()]
        if weights is not None:
            shares = weights.mask / weights.mask.sum((2, 3), keepdim=True).clamp(min=SMALLEST_COUNT)
            inputs.append(shares.numpy())
        weighted = weights is not None
        if weighted not in self._requests:
            self._requests[weighted] = self._compile(weighted)
        request = self._requests[weighted]
        request.infer(inputs, share_inputs=True)
        return torch.from_numpy(request.get_output_tensor(0).data)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_requests": {}}  # another process compiles its own

    def _compile(self, weighted: bool) -> Any:
        ov = _openvino()
        network: nn.Module = WeightedTrunk(self._layers) if weighted else self._layers
        image = torch.zeros(1, 1, TRACED_EDGE, TRACED_EDGE)
        example = (image, torch.full_like(image, 1 / TRACED_EDGE**2))[: 1 + weighted]
        with warnings.catch_warnings():
            # OpenVINO 2026.4 still traces with torch.jit, of which torch 2.14 warns.
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            # Tests of the number of channels and pixels, which hold for every slice.
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            model = ov.convert_model(
                network,
                example_input=example,
                input=[ov.PartialShape([-1, 1, -1, -1])] * len(example),
            )
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": self._hint,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        if self._cache_dir is not None:
            # OpenVINO names its files by the model's content, weights included, and refuses those
            # of another release, so a changed model or version is compiled anew.
            settings["CACHE_DIR"] = str(self._cache_dir / "openvino")
        return _core().compile_model(model, "CPU", settings).create_infer_request()


class WeightedTrunk(nn.Module):
    """The trunk with instance norms whose statistics are weighted sums over pixels.

    Args:
        layers: of the trunk; copied.
    """

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = copy.deepcopy(layers)
        self._norms: list[WeightedNorm] = []
        for parent in list(self.layers.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.InstanceNorm2d):
                    norm = WeightedNorm(child.eps)
                    setattr(parent, name, norm)
                    self._norms.append(norm)

    def forward(self, images: Tensor, shares: Tensor) -> Tensor:
        """Images and each pixel's share in the statistics, both (N, 1, H, W), to features."""
        for norm in self._norms:
            norm.shares = shares
        features: Tensor = self.layers(images)
        return features


class WeightedNorm(nn.Module):
    """Instance norm over weighted pixels."""

    shares: Tensor

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, values: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        mean = (values * self.shares).sum((2, 3), keepdim=True)
        centred = values - mean
        variance = (centred * centred * self.shares).sum((2, 3), keepdim=True)
        return centred * torch.rsqrt(variance + self.eps)
