"""Every source of chance in a run: seeded together, saved and restored together."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from util.errors import UserError

SEED_LIMIT = 2**32  # NumPy's legacy generator takes no more


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's legacy and torch's generators (CPU and all CUDA devices).

    Patch positions do not depend on these: they come from `data.sampling.item_generator`.

    Raises:
        UserError: `seed` is not in [0, 2^32).
    """
    if not 0 <= seed < SEED_LIMIT:
        raise UserError(f"seed is {seed}, expected 0 to {SEED_LIMIT - 1}: give another one")
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries below still draw from the global generator
    torch.manual_seed(seed)


def random_states() -> dict[str, Any]:
    """All generators' states in tensors, lists, numbers and strings.

    These types survive `torch.load(weights_only=True)`, so a checkpoint may hold them. CUDA
    states are read only where CUDA is in use: asking would start it on a run that has no need.
    """
    version, words, gaussian = random.getstate()
    name, keys, position, has_gaussian, cached = np.random.get_state()  # noqa: NPY002
    return {
        "python": {"version": version, "words": list(words), "gaussian": gaussian},
        "numpy": {
            "name": str(name),
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "position": int(position),
            "has_gaussian": int(has_gaussian),
            "cached": float(cached),
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Put all generators back to what `random_states` returned.

    On a machine with fewer CUDA devices than were saved, the surplus states are left out; tensors
    that a checkpoint's `map_location` has moved to another device are brought back.

    Raises:
        UserError: `states` is not what `random_states` returns.
    """
    try:
        python, numpy_state = states["python"], states["numpy"]
        random.setstate((python["version"], tuple(python["words"]), python["gaussian"]))
        keys = numpy_state["keys"].cpu().numpy().astype(np.uint32)
        np.random.set_state(  # noqa: NPY002
            (
                numpy_state["name"],
                keys,
                numpy_state["position"],
                numpy_state["has_gaussian"],
                numpy_state["cached"],
            )
        )
        torch.set_rng_state(states["torch"].cpu())
        available = torch.cuda.device_count() if states["cuda"] else 0
        for device, state in enumerate(states["cuda"][:available]):
            torch.cuda.set_rng_state(state.cpu(), device)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"the saved random states cannot be used ({error!r}), expected those of "
            "random_states(): resume from a checkpoint of this project"
        ) from error
