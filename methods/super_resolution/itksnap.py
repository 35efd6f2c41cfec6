"""A workspace that ITK-SNAP opens with a double click: one image with others laid over it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from util.files import write_text

# The format version that ITK-SNAP 3.8 to 4.2 read; older entries that it does not name keep
# their defaults.
FORMAT_VERSION = "20190612"
OPAQUE, HALF = "255", "0.5"  # of the main image and of the overlays, as ITK-SNAP counts


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
