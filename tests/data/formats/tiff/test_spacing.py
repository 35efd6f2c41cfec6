"""Voxel sizes that TIFF metadata state clearly, and those that they do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from data.formats.readers import read_volume

VOXELS = np.arange(5 * 8 * 9, dtype=np.uint16).reshape(5, 8, 9)


@pytest.mark.parametrize(
    ("unit", "millimetres"),
    [("micron", 1e-3), ("um", 1e-3), ("\\u00B5m", 1e-3), ("mm", 1.0), ("cm", 10.0), ("nm", 1e-6)],
)
def test_imagej(tmp_path: Path, unit: str, millimetres: float) -> None:
    metadata = {"axes": "ZYX", "unit": unit, "spacing": 4.0}
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, VOXELS, imagej=True, resolution=(1 / 2, 1 / 3), metadata=metadata)
    volume = read_volume(path)
    expected = (2 * millimetres, 3 * millimetres, 4 * millimetres)
    assert volume.spacing == pytest.approx(expected, rel=1e-5)
    assert volume.spacing_known


@pytest.mark.parametrize(
    "metadata",
    [
        {"unit": "pixel", "spacing": 4.0},
        {"spacing": 4.0},
        {"unit": "um"},
        {"unit": "um", "spacing": 0},
    ],
)
def test_imagej_without_unit_or_distance_of_slices(tmp_path: Path, metadata: dict) -> None:
    path = tmp_path / "a.tif"
    metadata = {"axes": "ZYX", **metadata}
    tifffile.imwrite(path, VOXELS, imagej=True, resolution=(0.5, 0.5), metadata=metadata)
    volume = read_volume(path)
    assert volume.spacing == (1.0, 1.0, 1.0)
    assert not volume.spacing_known


def test_imagej_slices_in_a_folder_are_isotropic(tmp_path: Path) -> None:
    for index, pixels in enumerate(VOXELS):
        tifffile.imwrite(
            tmp_path / f"{index}.tif",
            pixels,
            imagej=True,
            resolution=(50, 50),
            metadata={"unit": "mm"},
        )
    volume = read_volume(tmp_path)
    assert volume.spacing == pytest.approx((0.02, 0.02, 0.02))
    assert volume.spacing_known


def test_ome(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    sizes = {"PhysicalSizeX": 2.0, "PhysicalSizeY": 3.0, "PhysicalSizeZ": 0.004}
    units = {"PhysicalSizeZUnit": "mm"}  # x and y in OME's own default, micrometres
    tifffile.imwrite(path, VOXELS, ome=True, metadata={"axes": "ZYX", **sizes, **units})
    volume = read_volume(path)
    assert volume.spacing == pytest.approx((0.002, 0.003, 0.004))
    assert volume.spacing_known
    assert volume.name == "a"
    del sizes["PhysicalSizeZ"]
    tifffile.imwrite(path, VOXELS, ome=True, metadata={"axes": "ZYX", **sizes})
    assert not read_volume(path).spacing_known


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [
        ((500, 500), "CENTIMETER", 0.02),
        ((500, 400), "CENTIMETER", None),
        ((72, 72), "INCH", None),
        ((500, 500), "NONE", None),
    ],
)
def test_resolution_tags(
    tmp_path: Path, resolution: tuple[int, int], unit: str, expected: float | None
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, VOXELS, resolution=resolution, resolutionunit=unit)
    volume = read_volume(path)
    assert volume.spacing_known == (expected is not None)
    assert volume.spacing == pytest.approx((expected or 1.0,) * 3)


def test_the_given_spacing_wins(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, VOXELS, resolution=(500, 500), resolutionunit="CENTIMETER")
    assert read_volume(path, tiff_spacing=(1.0, 2.0, 3.0)).spacing == (1.0, 2.0, 3.0)
