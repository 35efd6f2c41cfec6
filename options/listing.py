"""What there is to choose from: `--list`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from options.presets import PRESET_NOTES

MODELS = {
    "medical_cycle_gan": "2, 4, 8 or 16 times in plane; 8 times without --sampling_times",
    "medical_cycle_ganx4": "the published 4x setting: loss weights and nearest identity",
}
DATASETS = {
    "unpaired": "clinical CT and micro-CT of different lungs (the paper)",
    "public_2D": "clinical CT alone, shrunk by itself",
    "paired": "each micro volume shows the field of its clinical one, as the phantom's do",
}
METHODS = {
    "smallpatchtest": "super-resolve clinical CT",
    "microCTsmallpatchtest": "score a model on micro-CT that is shrunk and restored",
    "wholevolumetest": "score a model on clinical CT that is shrunk and restored",
    "phantomtest": "score models against the truth of phantom patients",
}
CHOICES = {
    "models (train.py --model)": MODELS,
    "data (train.py --dataset_mode)": DATASETS,
    "presets (train.py --preset)": PRESET_NOTES,
    "methods (medicaltest.py --method)": METHODS,
}


def listing() -> str:
    """All choices with a line each."""
    lines = []
    for title, choices in CHOICES.items():
        lines.append(title)
        lines += [f"  {name:<24}{what}" for name, what in choices.items()]
    return "\n".join(lines)


class ListChoices(argparse.Action):
    """Prints the choices and leaves with exit code 0, as --help does."""

    def __init__(self, option_strings: Sequence[str], dest: str, **rest: Any) -> None:
        super().__init__(
            option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=rest.get("help")
        )

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        print(listing())
        parser.exit()
