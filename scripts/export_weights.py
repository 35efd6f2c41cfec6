"""Take G_A out of a checkpoint and write it as the project ships it (docs/model_card.md).

    python scripts/export_weights.py --checkpoint checkpoints/NAME/latest.pt \\
        --out weights/sr_x8.safetensors --training "what it was trained on" --licence "..."

`--blend FILE --share 0.4` takes 0.4 of the weights from a second checkpoint, which was trained on
from the first with another weighting of fidelity and texture: a point on the way between the two
(Wang et al., ESRGAN, ECCV Workshops 2018, network interpolation).
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from models.checkpoints.checkpoint import load_generator, weights_digest  # noqa: E402
from models.checkpoints.shipped_weights import SUFFIX, write_weights  # noqa: E402
from models.networks import SRGenerator  # noqa: E402
from util.errors import UserError, run_program  # noqa: E402
from util.run_record import git_commit  # noqa: E402


def main(arguments: list[str]) -> None:
    """Read and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="of train.py")
    parser.add_argument("--out", type=Path, required=True, help=f"file that ends in {SUFFIX}")
    parser.add_argument("--training", required=True, help="data, command and seed, in words")
    parser.add_argument("--licence", required=True, help="of the weights, and of the data")
    parser.add_argument("--blend", type=Path, help="a checkpoint that was trained from the first")
    parser.add_argument("--share", type=float, default=0.5, help="of its weights (%(default)s)")
    parser.add_argument(
        "--spread", type=float, help="factor on the spread of draws of texture (benchmarks.dial)"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    chosen = parser.parse_args(arguments)
    if chosen.out.suffix != SUFFIX:
        raise UserError(f"--out {chosen.out}: expected a name that ends in {SUFFIX}")
    loaded = load_generator(chosen.checkpoint)
    if loaded.windows is None:
        raise UserError(f"{chosen.checkpoint} states no windows: give a checkpoint of train.py")
    if chosen.spread is not None and loaded.generator.texture is None:
        raise UserError(f"--spread: {chosen.checkpoint} has no texture layers: leave it out")
    if chosen.spread is not None and not 0 < chosen.spread < math.inf:
        raise UserError(f"--spread {chosen.spread:g}: expected a factor above 0, such as 1.3")
    spread = chosen.spread
    if spread is None and not chosen.blend and loaded.spread != 1:
        spread = loaded.spread  # of the very same weights
    if chosen.blend:
        blend(loaded.generator, load_generator(chosen.blend).generator, chosen.share)
    write_weights(
        chosen.out,
        loaded.generator,
        {
            "windows": loaded.windows,
            "scans": loaded.scans,
            "spread": spread,
            "training": chosen.training,
            "dataset_mode": loaded.options.get("dataset_mode"),
            "step": loaded.step,
            "commit": git_commit(ROOT),
            "licence": chosen.licence,
        },
    )
    digest = weights_digest(loaded.generator)
    print(f"{chosen.out} ({chosen.out.stat().st_size / 1e6:.1f} MB), weights {digest[:16]}")


def blend(generator: SRGenerator, other: SRGenerator, share: float) -> None:
    """Move a generator's weights, in place, by `share` of the way to another's.

    Raises:
        UserError: the architectures differ, or the share is not within 0 to 1.
    """
    if generator.architecture != other.architecture:
        raise UserError(
            f"--blend is built from {other.architecture}, --checkpoint from "
            f"{generator.architecture}: give two of one architecture"
        )
    if not 0 <= share <= 1:
        raise UserError(f"--share {share:g}: expected 0 to 1")
    with torch.no_grad():
        for mine, theirs in zip(generator.parameters(), other.parameters(), strict=True):
            mine.lerp_(theirs, share)


if __name__ == "__main__":
    run_program(main)
