"""The workspace names its images in the roles that ITK-SNAP knows."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from methods.super_resolution.companions import write_workspace


def read(folder: ElementTree.Element) -> dict[str, object]:
    """Entries and folders by key."""
    found: dict[str, object] = {}
    for one in folder:
        found[one.attrib["key"]] = one.attrib["value"] if one.tag == "entry" else read(one)
    return found


def test_images_and_their_roles(tmp_path: Path) -> None:
    path = tmp_path / "a & b" / "SR.itksnap"
    write_workspace(path, path.parent / "SR.nii.gz", {"input": path.parent / "clinical.nii.gz"})
    told = read(ElementTree.parse(path).getroot())
    assert told["SaveLocation"] == str(path.parent)
    layers = told["Layers"]
    assert isinstance(layers, dict)
    main, overlay = layers["Layer[000]"], layers["Layer[001]"]
    assert main["AbsolutePath"] == str(path.parent / "SR.nii.gz")
    assert main["Role"] == "MainRole"
    assert main["LayerMetaData"]["CustomNickName"] == "SR"
    assert overlay["AbsolutePath"] == str(path.parent / "clinical.nii.gz")
    assert overlay["Role"] == "OverlayRole"
    assert overlay["LayerMetaData"] == {
        "Alpha": "0.5",
        "CustomNickName": "input",
        "Sticky": "1",
        "Tags": "",
        "DisplayMapping": {"ColorMap": {"Preset": "Grayscale"}},
    }
