"""What a test method works on: its volumes, where each one's results go, and what is refused."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from data.formats.discovery import find_volumes
from data.formats.readers import read_volume
from data.formats.zarr_store import is_zarr, read_zarr
from data.opening import Spacing, open_with_lung_mask
from data.phantom.training_set import generate_phantom, report_phantom
from data.volumes.mask_files import mask_in_words
from data.volumes.names import TIFF_ENDINGS, case_name, ending_of, holds_dicom
from data.volumes.volume import Volume, parse_slices
from data.windows import Domain, IntensityWindow
from methods.cohort import own_share, run_cases
from methods.loading import LoadedModel, load_model
from methods.pages.result_page import write_overview
from options.base_options import PHANTOM_FOLDER
from util.disk.folder_lock import owned_folder
from util.errors import UserError
from util.privacy import hide

SAMPLED_SLICES = 16
MOSTLY_OUTSIDE = 0.95
IN_USE = "wait for its end, or give another --results_dir"


def run_method(
    options: Namespace,
    domain: Domain,
    names: Sequence[str],
    work: Callable[[Path, Path, LoadedModel, Namespace], None],
    first: str = "",
    check: Callable[[Path], None] = lambda folder: None,
) -> int:
    """Load the model, find the inputs, refuse what is in the way, and work through the cases.

    Args:
        options: of the run.
        domain: of the phantom's volume that is taken without --input.
        names: of the files that a case leaves.
        work: does a case: (input, results folder, model, options).
        first: word before the names of a case's picture and record.
        check: refuses what else is in the way in a results folder.

    Returns:
        Exit code, see `methods.cohort.run_cases`.
    """
    model = load_model(options)
    paths = input_paths(options, model.scale, domain)
    hide_identities(paths)
    folders = result_folders(paths, options.results_dir)
    cases = list(zip(paths, folders, strict=True))
    outputs = [folder / name for folder in folders for name in names]
    refuse_own_inputs(outputs, paths, options.input, options.results_dir)
    # Only this job's share: another job of the cohort may have finished some of its own.
    own = own_share(cases, options.num_parts, options.part_id)
    if not options.resume:
        refuse_existing([folder / name for _, folder in own for name in names], options.overwrite)
    for _, folder in own:
        check(folder)

    def work_alone(path: Path, folder: Path) -> None:
        with owned_folder(folder, IN_USE):
            if not options.resume:  # another job may have finished it meanwhile
                refuse_existing([folder / name for name in names], options.overwrite)
            work(path, folder, model, options)

    code = run_cases(options, cases, work_alone)
    write_overview(options, folders, first)
    return code


def alone(method: Callable[[Namespace], int]) -> Callable[[Namespace], int]:
    """The test method, which owns the whole results folder while it runs."""

    def run(options: Namespace) -> int:
        with owned_folder(Path(options.results_dir), IN_USE):
            return method(options)

    return run


def input_paths(options: Namespace, scale: int, domain: Domain) -> list[Path]:
    """Volumes to work on: --input, else the phantom's held-back volume of `domain`."""
    if options.input:
        cache_dir = Path(options.cache_dir) if options.cache_dir else None
        return find_volumes(options.input, cache_dir)
    folder = Path(PHANTOM_FOLDER) / f"x{scale}"
    phantom = generate_phantom(folder, scale, report_phantom(print))
    chosen = phantom.clinical_test if domain == "clinical" else phantom.micro_test
    print(f"no --input given: using the phantom's held-back volume in {chosen}")
    return find_volumes([str(chosen)])


def result_folders(paths: list[Path], results_dir: str) -> list[Path]:
    """Folder of each case's results: `results_dir` itself for one case, else one folder a case.

    Args:
        paths: input volumes.
        results_dir: as the user gave it.

    Raises:
        UserError: two inputs have the same case name, so that one would replace the other.
    """
    root = Path(results_dir)
    names = [case_name(path) for path in paths]
    if len(names) == 1:
        return [root]
    for index, name in enumerate(names):
        if name in names[:index]:
            first = paths[names.index(name)]
            raise UserError(
                f"{paths[index]} and {first} are both case {name}: rename one or run them apart"
            )
    return [root / name for name in names]


def refuse_own_inputs(
    outputs: list[Path], paths: list[Path], words: list[str] | None, results_dir: str
) -> None:
    """Refuse to write over an input, also with --overwrite, or where results would become inputs.

    Args:
        outputs: files that the cases will leave.
        paths: input volumes.
        words: --input as it was given.
        results_dir: as it was given.

    Raises:
        UserError: names the file or the folder.
    """
    inputs = {path.resolve() for path in paths}
    for path in outputs:
        if path.resolve() in inputs:
            raise UserError(
                f"output {path} is an input of this run: give another --results_dir or "
                "--output_name"
            )
    target = Path(results_dir).resolve()
    for word in words or []:
        folder = Path(word).expanduser()
        if folder.is_dir() and target.is_relative_to(folder.resolve()):
            raise UserError(
                f"--results_dir {results_dir} lies in the input folder {word}, where the next run "
                "would take results for inputs: give a folder outside it"
            )


def check_window(volume: Volume, window: IntensityWindow) -> None:
    """Refuse a window that leaves nothing of a volume, and warn of one that leaves little.

    Args:
        volume: of which up to some sixteen slices are looked at, whole.
        window: in the volume's units, HU for clinical CT.

    Raises:
        UserError: every value that was looked at is lost, so that no score would mean anything.
    """
    step = max(1, volume.num_slices // SAMPLED_SLICES)
    slices = [volume.read_slice(index) for index in range(0, volume.num_slices, step)]
    share = float(np.mean([window.outside(image).mean() for image in slices]))
    if share < MOSTLY_OUTSIDE:
        return
    lowest, highest = min(image.min() for image in slices), max(image.max() for image in slices)
    line = (
        f"{100 * share:.0f} % of {volume.source}, whose values go from {lowest:g} to {highest:g}, "
        f"lie outside the intensity window {window.low:g} to {window.high:g}: give --windows by "
        "what air and tissue have in it (docs/data.md)"
    )
    if share == 1:
        raise UserError(line)
    print(f"warning: {line}", file=sys.stderr)


def refuse_existing(paths: list[Path], overwrite: bool) -> None:
    """Refuse, before any work, to write over results that are there."""
    there = [path for path in paths if path.exists()]
    if there and not overwrite:
        raise UserError(
            f"{there[0]} exists already: --overwrite replaces it, --results_dir FOLDER writes "
            "elsewhere"
        )


def open_case(path: Path, options: Namespace, domain: Domain) -> tuple[Volume, np.ndarray | None]:
    """Open one input with its lung mask (None where --region all asks for none)."""
    cache_dir = Path(options.cache_dir) if options.cache_dir else None
    spacing = input_spacing(path, domain, options)
    if options.region == "lung":
        folder = Path(options.maskdatafolder) if options.maskdatafolder else None
        volume, mask = open_with_lung_mask(path, cache_dir, folder, spacing, options.slices)
        say_what_is_assumed(volume)
        print(f"lung mask of {volume.printed_name}: {mask_words(volume, options)}")
        say_who_is_named(volume)
        return volume, mask
    volume = read_volume(path, cache_dir, spacing)
    say_what_is_assumed(volume)
    if options.slices is not None:
        volume = volume.select_slices(*parse_slices(options.slices, volume.num_slices))
    say_who_is_named(volume)
    return volume, None


def input_spacing(path: Path, domain: Domain, options: Namespace) -> Spacing | None:
    """What --micro_spacing says of an input: of CT in Zarr only where the store states no size."""
    given: Spacing | None = options.micro_spacing
    if given is None:
        return None
    if is_zarr(path):
        is_stated = domain == "clinical" and read_zarr(path).spacing_known
    elif path.is_dir():
        is_stated = holds_dicom(path)
    else:
        is_stated = ending_of(path) not in TIFF_ENDINGS
    if is_stated:
        print(f"note: --micro_spacing is not used: {path} states its own", file=sys.stderr)
    return None if is_stated else given


def say_what_is_assumed(volume: Volume) -> None:
    """Tell of a volume whose file states no voxel size."""
    if not volume.spacing_known:
        print(
            f"note: {volume.source} states no voxel size (x, y and z): "
            f"{' x '.join(f'{edge:g}' for edge in volume.spacing)} mm is assumed",
            file=sys.stderr,
        )


def hide_identities(paths: Sequence[Path]) -> None:
    """Learn what identifies the patients of all inputs, since the first record names them all."""
    places = [path for path in paths if not is_zarr(path) and not ending_of(path)]
    if places:
        from data.formats.dicom.identity import identity_of  # it loads pydicom

        for place in places:
            hide(identity_of(place))


def say_who_is_named(volume: Volume) -> None:
    """Tell where the name of an input identifies the patient, and what it is still used for."""
    if volume.title != volume.printed_name:
        print(
            f"note: the name {volume.printed_name} identifies the patient: records, pages and "
            "pictures go without it (--keep_identity leaves it in), but folders of several "
            "results, and links to them, have it",
            file=sys.stderr,
        )


def mask_words(volume: Volume, options: Namespace) -> str | None:
    """For the record: the file of a volume's lung mask, or that it was computed; None for none."""
    if options.region != "lung":
        return None
    return mask_in_words(volume, Path(options.maskdatafolder) if options.maskdatafolder else None)
