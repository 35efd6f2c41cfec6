"""How far to trust a result: the scan against what the weights know, and the image by itself.

Before the work the scan is measured and compared with the scans that the weights were trained for
(`data.scan_properties`). After it the figures of `util.images.trust` are taken of the slice that
the preview shows, and put into a word.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from data.scan_properties import TEXTS, beyond, measure_scan
from data.volumes.volume import Volume
from methods.loading import LoadedModel
from util.images.trust import SMALLEST_AREA, consistency, flip, lattice, noise_gain

# Highest figures of a word. Of phantom images at 8x, where it was measured, 99 in 100 that keep
# within all of CALM are better than cubic interpolation, and less than half of those that go beyond
# one of NOT_TRUSTED (docs/benchmark.md, benchmarks/trust_borders.py).
CALM = {"flip_hu": 10.0, "noise_gain": 2.5, "lattice_hu": 2.0}
NOT_TRUSTED = {"flip_hu": 15.0, "noise_gain": 4.0, "lattice_hu": 6.0}
ADVICE = {
    "calm": "the image is stable",
    "careful": "fine detail may be invented: compare with the input",
    "do not trust": "fine detail is mostly invented: take other weights, or train on such scans "
    "(docs/training.md)",
}
Redo = Callable[[np.ndarray, np.ndarray | None], np.ndarray]
"""Slice in HU and its lung mask -> what a run makes of it."""


def check_scan(volume: Volume, mask: np.ndarray | None, model: LoadedModel) -> dict[str, Any]:
    """Measure a clinical CT, say in one line what of it the weights do not know.

    Returns:
        For run.json: `scan` as measured, `weights_know`, and `outside` in words (null where nothing
        is, or where the weights do not say what they know).
    """
    scan, known = measure_scan(volume, mask), model.loaded.scans
    outside = beyond(scan, known) if known else []
    if outside:
        print(
            f"warning: {volume.printed_name} has {', '.join(outside)}; in brackets what the "
            "weights were trained for: look at the result with care, or train on such scans "
            "(docs/training.md)",
            file=sys.stderr,
        )
    measured = {
        name: None if value is None else round(value, 3) for name, value in scan._asdict().items()
    }
    return {"scan": measured, "weights_know": known, "outside": "; ".join(outside) or None}


# Where texture was drawn beside it.
OF_BEST = "best estimate, without the detail that is drawn by chance"


def judge(
    redo: Redo,
    image: np.ndarray,
    result: np.ndarray,
    section: np.ndarray | None,
    name: str,
    drawn: bool = False,
) -> dict[str, Any] | None:
    """Take the figures of a slice of a result and say them in one line.

    Costs two slices' time.

    Args:
        redo: what made `result` of `image`.
        image: (rows, columns), HU.
        result: (rows * scale, columns * scale), HU.
        section: lung mask of the slice; None for everywhere.
        name: of the case.
        drawn: whether what was written shows texture that `result`, the best estimate, does not.

    Returns:
        For run.json; None where too little of the slice is lung, or all of it one value.
    """
    figures = figures_of(redo, image, result, section)
    if figures is None:
        return None
    word = word_of(figures)
    shown = f"{name}, {OF_BEST}" if drawn else name
    print(f"{shown}: {word} ({figures_in_words(figures)}): {ADVICE[word]}")
    found = {what: round(value, 3) for what, value in figures.items()}
    return {"word": word, **({"of_best_estimate": True} if drawn else {}), **found}


def figures_of(
    redo: Redo, image: np.ndarray, result: np.ndarray, section: np.ndarray | None
) -> dict[str, float] | None:
    """The figures of `util.images.trust` by name; arguments and None as for `judge`."""
    inside = np.ones(image.shape, bool) if section is None else section != 0
    if np.count_nonzero(inside) < SMALLEST_AREA or np.ptp(image[inside]) == 0:
        return None
    mirrored = None if section is None else np.ascontiguousarray(section[:, ::-1])
    grid = lattice(result, inside)
    return {
        "consistency_hu": consistency(result, image, inside),
        "flip_hu": flip(lambda turned: redo(turned, mirrored), result, image, inside),
        "noise_gain": noise_gain(lambda noisy: redo(noisy, section), result, image, inside),
        "lattice_db": grid.decibel,
        "lattice_hu": grid.amplitude,
    }


def figures_in_words(figures: Mapping[str, Any]) -> str:
    """What `judge` found, without its word."""
    return (
        f"flip {figures['flip_hu']:.1f} HU, noise gain {figures['noise_gain']:.2f}, "
        f"grid {figures['lattice_hu']:.1f} HU, {figures['consistency_hu']:.0f} HU from the scan"
    )


def facts_for_page(record: Mapping[str, Any]) -> dict[str, str]:
    """What run.json says of all this, in words."""
    facts, trust, scan = {}, record.get("trust"), record.get("scan") or {}
    if trust:
        of = f" ({OF_BEST})" if trust.get("of_best_estimate") else ""
        facts["the image"] = f"{trust['word']}{of}: {ADVICE[trust['word']]}"
        facts["its figures"] = figures_in_words(trust)
    measured = [
        f"{words} {scan[name]:.3g} {unit}"
        for name, (words, unit, _) in TEXTS.items()
        if scan.get(name) is not None
    ]
    if measured:
        facts["the scan"] = ", ".join(measured)
        known = record.get("weights_know")
        facts["beyond what the weights know"] = (
            "not known: the weights do not say" if not known else record["outside"] or "nothing"
        )
    return facts


def word_of(figures: Mapping[str, float]) -> str:
    """Calm, careful or do not trust."""
    if any(figures[name] > border for name, border in NOT_TRUSTED.items()):
        return "do not trust"
    if all(figures[name] <= border for name, border in CALM.items()):
        return "calm"
    return "careful"
