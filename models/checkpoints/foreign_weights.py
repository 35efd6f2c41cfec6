"""Weights as other programs wrap and name them, as this project's networks take them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

# What holds a state dict inside a file, the best first: a moving average is what tests should use.
WRAPPERS = (
    *("params_ema", "ema", "model_ema", "state_dict", "model_state_dict", "params"),
    *("G_A", "netG_A", "generator", "netG", "model", "network", "weights"),
)
# What programs put before every key: DataParallel, torch.compile, a trainer's name of the network.
PREFIXES = ("module.", "_orig_mod.", "G_A.", "netG_A.", "generator.", "netG.", "network.")
STATISTICS = re.compile(r"\.(running_mean|running_var|num_batches_tracked)$")
DEEPEST = 4  # wrappers in each other


def opened(state: Any) -> dict[str, Tensor]:
    """The state dict in a file of weights, without what programs wrap it in.

    Args:
        state: what the file holds.

    Raises:
        ValueError: nothing in it is a state dict; says what there is.
    """
    for _ in range(DEEPEST):
        if not isinstance(state, Mapping):
            raise ValueError(f"it holds a {type(state).__name__}, not weights by their names")
        inner = next((name for name in WRAPPERS if isinstance(state.get(name), Mapping)), None)
        if inner is not None:
            state = state[inner]
        elif any(isinstance(value, Tensor) for value in state.values()):
            return _without_prefixes({str(k): v for k, v in state.items() if isinstance(v, Tensor)})
        else:
            break
    raise ValueError(f"it holds {', '.join(map(str, list(state)[:3])) or 'nothing'}, no weights")


def _without_prefixes(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of several networks in one file those of G_A."""
    for _ in range(DEEPEST):
        prefix = next(
            (p for p in PREFIXES if any(key.startswith(p) for key in weights)),
            None,
        )
        if prefix is None:
            break
        named = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        weights = named
    return weights


def as_published(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the original's variants by the published names.

    Instance norms of torch before 0.4 had running statistics, which the method does not use. With
    dropout (in training only) the second convolution of a block stands one place further down.
    """
    has_batch_norm = any(re.search(r"model\.2\.weight$", key) for key in weights)
    named = {
        key: value for key, value in weights.items() if has_batch_norm or not STATISTICS.search(key)
    }
    if any(".conv_block.6.weight" in key and value.dim() == 4 for key, value in named.items()):
        moved = re.compile(r"(\.conv_block\.)([67])(\.)")
        named = {
            moved.sub(lambda m: f"{m[1]}{int(m[2]) - 1}{m[3]}", key): value
            for key, value in named.items()
        }
    return named


def unlike(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str | None:
    """In words, where weights first differ from those of a network; None where they fit."""
    for key, value in expected.items():
        if key not in given:
            return f"it lacks {key}"
        if given[key].shape != value.shape:
            return f"{key} is {_size(given[key])}, expected {_size(value)}"
        if given[key].is_complex() or given[key].is_sparse or given[key].is_meta:
            return f"{key} is complex, sparse or empty, expected plain real numbers"
    extra = next((key for key in given if key not in expected), None)
    return None if extra is None else f"{extra} is none of its weights"


def _size(weight: Tensor) -> str:
    return "x".join(map(str, weight.shape)) or "a number"
