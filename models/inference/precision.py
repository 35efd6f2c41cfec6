"""In which arithmetic convolutions are computed; norms and all else stay in fp32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from models.inference.turn import Turn
from util.devices import check_precision
from util.errors import UserError

# Name -> type of convolutions and feature maps; tf32 rounds what it multiplies, not what it keeps.
PRECISIONS = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def stored_type(precision: str, device: torch.device) -> torch.dtype:
    """Type of convolutions and feature maps.

    Raises:
        UserError: no such precision, or not on this device.
    """
    if precision not in PRECISIONS:
        raise UserError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
    check_precision(precision, device)
    return PRECISIONS[precision]


_flags_turn = Turn()


@contextmanager
def fp32_convolutions(device: torch.device, rounded: bool = False) -> Iterator[None]:
    """Within it a GPU's fp32 convolutions are exact, or rounded to 10 bits (TF32), as is asked.

    What torch does by itself depends on its version, and on what else a program has told it. The
    flags are those of the whole process, so threads take turns; a CPU has none.
    """
    if device.type != "cuda":
        yield
        return
    # `enabled` has to be given: by default the flags turn cuDNN off.
    settings: dict[str, Any] = {"enabled": True, "allow_tf32": rounded}
    if hasattr(torch.backends, "fp32_precision"):  # since torch 2.9; it comes before allow_tf32
        settings["fp32_precision"] = "tf32" if rounded else "ieee"  # where a program has set it
    with _flags_turn, torch.backends.cudnn.flags(**settings):
        yield
