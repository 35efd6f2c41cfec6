"""stabilitytest: the figures that need no truth, over a whole scan."""

from __future__ import annotations

import csv
import io
import time
from argparse import Namespace
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from data.volumes.volume import parse_slices
from methods.inputs import check_window, mask_words, open_case, run_method
from methods.loading import LoadedModel
from methods.pages.result_page import PAGE, keep_other_page, may_fail
from methods.stability.figures import draw_curves, draw_worst
from methods.stability.page import TITLES, Row, page_of
from methods.super_resolution.resuming import upscale_settings
from methods.super_resolution.volume_upscaling import (
    gather_statistics,
    read_slices,
    slice_maker,
)
from methods.trust_report import ADVICE, NOT_TRUSTED, check_scan, figures_of, word_of
from models.inference.case_enlarger import CaseEnlarger
from util.errors import UserError
from util.files import atomic_path, write_text
from util.images.trust import SMALLEST_AREA
from util.interrupt import StopRequest
from util.pipeline import ahead
from util.progress import progress
from util.run_record import write_run_record

SLICES, CURVES, PREVIEW = (
    f"stability_{name}" for name in ("slices.csv", "curves.png", "preview.png")
)
OUTPUTS = (SLICES, CURVES, PREVIEW)
RECORD = "stability_run.json"
LOOKS = 3  # that the network has at a slice: as it is, mirrored and with noise
IN_WORDS = {  # mean and largest
    "flip_hu": "flip {:.1f} HU (at most {:.1f})",
    "noise_gain": "noise gain {:.2f} (at most {:.2f})",
    "lattice_hu": "grid {:.1f} HU (at most {:.1f})",
}


def stability(options: Namespace) -> int:
    """Measure every input volume; returns the exit code, see `methods.cohort.run_cases`.

    Leaves for each case the figures of all slices with lung (CSV), their curves, a picture of the
    worst slice, a record and a page. Costs three times what smallpatchtest does.
    """
    return run_method(options, "clinical", OUTPUTS, measure_case, "stability_")


def measure_case(path: Path, folder: Path, model: LoadedModel, options: Namespace) -> None:
    """Measure one volume and write what was found; nothing is written before all is measured.

    Raises:
        UserError: no slice shows enough lung.
    """
    started = time.monotonic()
    volume, mask = open_case(path, options, "clinical")
    window = model.windows.window_for(volume, "clinical")
    check_window(volume, window)
    seen = check_scan(volume, mask, model)
    settings = upscale_settings(model, options)
    enlarger = CaseEnlarger(model.resolver, settings.self_ensemble)
    redo = slice_maker(enlarger, window, settings, model.scale)
    # Slices are counted as in the file, whichever --slices were chosen.
    whole = volume.whole or volume
    first = parse_slices(options.slices, whole.num_slices)[0] if options.slices else 0
    rows: list[Row] = []
    with StopRequest() as stop:
        if settings.volume_statistics:
            gather_statistics(volume, mask, enlarger, window, settings, stop)
        with closing(ahead(read_slices(volume, mask, range(volume.num_slices)))) as slices:
            for index, image, section in progress(
                stop.checked(slices), volume.printed_name, unit="slice", total=volume.num_slices
            ):
                if section is not None and np.count_nonzero(section) < SMALLEST_AREA:
                    continue
                found = figures_of(redo, image, redo(image, section), section)
                if found is not None:
                    rows.append({"slice": first + index, **found, "word": word_of(found)})
    if not rows:
        raise UserError(
            f"{volume.source}: no slice has {SMALLEST_AREA} pixels of lung with anything in them: "
            "give other --slices or --region all"
        )
    worst = max(rows, key=lambda row: max(row[name] / most for name, most in NOT_TRUSTED.items()))
    index = worst["slice"] - first
    section = None if mask is None else mask[index]
    title = f"{volume.title}, slice {worst['slice']}"
    pictures: list[bytes] = []
    with may_fail("picture", options.debug):
        pictures += [draw_curves(rows, TITLES, volume.title)]
        pictures += [draw_worst(redo, volume.read_slice(index), section, title)]
    words = in_words(rows)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / SLICES, as_csv(rows))
    for name, picture in zip((CURVES, PREVIEW), pictures, strict=False):
        with atomic_path(folder / name) as place:
            place.write_bytes(picture)
    record = write_run_record(
        folder / RECORD,
        vars(options),
        str(model.resolver.device),
        method=options.method,
        input=volume.source,
        lung_mask=mask_words(volume, options),
        outputs=[str(folder / name) for name in OUTPUTS],
        **model.facts(),
        window=window.as_dict(),
        **seen,
        figures={name: spread([row[name] for row in rows]) for name in TITLES},
        words={word: sum(row["word"] == word for row in rows) for word in ADVICE},
        worst_slice=worst["slice"],
        in_words=words,
        seconds=round(time.monotonic() - started, 3),
    )
    print(f"{volume.printed_name}: {words}")
    print(f"wrote {', '.join(str(folder / name) for name in OUTPUTS)}")
    if options.page_mb > 0:
        with may_fail("page", options.debug):
            others = keep_other_page(folder / PAGE, options.method)
            write_text(folder / PAGE, page_of(options.method, record, rows, pictures, others))
            print(f"open {folder / PAGE} in a browser to look at it")


def in_words(rows: Sequence[Row]) -> str:
    """How many slices deserve which word, and the figures' means and largest values."""
    counts = [(word, sum(row["word"] == word for row in rows)) for word in ADVICE]
    parts = [f"{count} of {len(rows)} slices {word}" for word, count in counts if count]
    for name, text in IN_WORDS.items():
        values = [row[name] for row in rows]
        parts.append(text.format(float(np.mean(values)), max(values)))
    return ", ".join(parts)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean, median and the two ends."""
    ends = {"lowest": min(values), "highest": max(values)}
    means = {"mean": float(np.mean(values)), "median": float(np.median(values))}
    return {name: round(value, 4) for name, value in {**means, **ends}.items()}


def as_csv(rows: Sequence[Row]) -> str:
    """A row a slice, counted from 0."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, ["slice", *TITLES, "word"], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {name: round(v, 4) if isinstance(v, float) else v for name, v in row.items()}
        )
    return stream.getvalue()
