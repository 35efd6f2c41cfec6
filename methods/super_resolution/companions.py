"""What stands beside a super-resolved volume: other formats, a workspace, the page."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from data.lung_mask import preview_slice
from data.volumes.names import is_dicom
from data.volumes.volume import Volume
from data.windows import IntensityWindow
from data.writing.exports import check_export_place, export_name, export_volume
from methods.pages.case_view import case_viewer
from methods.pages.result_images import super_resolved_images
from methods.pages.result_page import Section, make_page
from methods.trust_report import facts_for_page
from util.errors import UserError
from util.files import write_text
from util.pages.page_parts import facts_table
from util.pages.viewer_page import Viewer

# The format version that ITK-SNAP 3.8 to 4.2 read; older entries that it does not name keep
# their defaults.
FORMAT_VERSION = "20190612"
OPAQUE, HALF = "255", "0.5"  # of the main image and of the overlays, as ITK-SNAP counts


def volume_ending(options: Namespace) -> str:
    """File name ending of the result and its companions."""
    return ".nii.gz" if options.output_name.lower().endswith(".gz") else ".nii"


def export_names(options: Namespace) -> list[str]:
    """What a case leaves beside the volumes that it computes: for other programs."""
    workspace = options.output_name.removesuffix(".gz").removesuffix(".nii") + ".itksnap"
    if options.output_format == "nifti":
        return [workspace]
    return [workspace, export_name(options.output_name, options.output_format)]


def check_exports(options: Namespace, folder: Path) -> None:
    """Refuse, before any work, what `write_exports` would refuse at the end.

    Raises:
        UserError: something else stands where an export would go.
    """
    kind = options.output_format
    if kind != "nifti":
        check_export_place(folder / export_name(options.output_name, kind), kind)


def write_exports(options: Namespace, folder: Path, source: Path) -> None:
    """Write the files of `export_names`.

    Raises:
        UserError: the disk refuses; the result is complete, which the message says.
    """
    result = folder / options.output_name
    overlays = {"input": folder / f"clinical{volume_ending(options)}"}
    try:
        write_workspace(folder / export_names(options)[0], result, overlays)
        if options.output_format != "nifti":
            export = export_volume(result, options.output_format, source, drawn_words(options))
            print(f"wrote {export}")
            if options.output_format == "dicom" and is_dicom(source):
                print(f"{export} has the patient's name, ID and study of {source}")
    except UserError as error:
        raise UserError(f"{error} ({result} is complete: --resume writes the rest)") from error


def drawn_words(options: Namespace) -> str:
    """What of a result is drawn by chance, in a few words; "" for nothing."""
    if options.samples:
        return f"{options.samples} samples"
    return f"texture {options.texture:.2f}" if options.texture else ""


def complete_exports(options: Namespace, folder: Path, source: Path) -> None:
    """Write the exports of a finished result where one is missing."""
    if any(not (folder / name).exists() for name in export_names(options)):
        write_exports(options, folder, source)


def show_result(
    options: Namespace,
    folder: Path,
    record: Mapping[str, Any],
    volume: Volume,
    mask: np.ndarray | None,
    window: IntensityWindow,
) -> None:
    """Write the case's page."""

    def viewer(page_bytes: float) -> Viewer:
        spread = "uncertainty" + volume_ending(options) if options.uncertainty else None
        name, scale = options.output_name, int(record["scale"])
        shown = preview_slice(volume, mask)
        images = super_resolved_images(folder, volume, mask, window, scale, name, spread, shown)
        return case_viewer(images, page_bytes)

    error = record.get("consistency_error_hu", {})
    sections = []
    if trusted := facts_for_page(record):
        sections.append(Section("Can it be trusted?", [facts_table(trusted)]))
    if error.get("mean") is not None:
        facts = {
            "mean": f"{error['mean']:.2f} HU",
            "largest": f"{error['largest']:.1f} HU",
            "slices": str(error["slices"]),
        }
        title = "Difference of the averaged result from its input"
        sections.append(Section(title, [facts_table(facts)]))
    make_page(options, folder, record, viewer, sections, folder / "preview.png")


def write_workspace(path: Path, main: Path, overlays: Mapping[str, Path]) -> None:
    """Write a workspace.

    ITK-SNAP draws everything on the main image's grid, so the finest image should be that. Where
    the folder was moved, it finds the images by their place beside the workspace.

    Args:
        path: NAME.itksnap.
        main: the image.
        overlays: image by the name that ITK-SNAP shows; half transparent.
    """
    registry = ElementTree.Element("registry")
    _entry(registry, "SaveLocation", str(path.parent.resolve()))
    _entry(registry, "Version", FORMAT_VERSION)
    layers = _folder(registry, "Layers")
    _layer(layers, main, "MainRole", main.name.split(".")[0], OPAQUE, sticky=False)
    for name, image in overlays.items():
        _layer(layers, image, "OverlayRole", name, HALF, sticky=True)
    ElementTree.indent(registry)
    text = ElementTree.tostring(registry, encoding="unicode")
    write_text(path, f'<?xml version="1.0" encoding="UTF-8" ?>\n{text}\n')


def _layer(
    layers: ElementTree.Element, image: Path, role: str, name: str, alpha: str, sticky: bool
) -> None:
    layer = _folder(layers, f"Layer[{len(layers):03d}]")
    _entry(layer, "AbsolutePath", str(image.resolve()))
    _entry(layer, "Role", role)
    _entry(layer, "Tags", "")
    about = _folder(layer, "LayerMetaData")
    _entry(about, "Alpha", alpha)
    _entry(about, "CustomNickName", name)
    _entry(about, "Sticky", str(int(sticky)))
    _entry(about, "Tags", "")
    _entry(_folder(_folder(about, "DisplayMapping"), "ColorMap"), "Preset", "Grayscale")


def _folder(parent: ElementTree.Element, key: str) -> ElementTree.Element:
    return ElementTree.SubElement(parent, "folder", key=key)


def _entry(parent: ElementTree.Element, key: str, value: str) -> None:
    ElementTree.SubElement(parent, "entry", key=key, value=value)
