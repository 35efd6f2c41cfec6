"""A result in another format: the same voxels at the same place, read by ITK and by ourselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 - the library's own short name
from dicom_helpers import chest, enhanced_ct
from method_helpers import affines

import data.writing.exports
from data.formats.dicom.slice_files import slices_of
from data.formats.readers import read_volume
from data.writing.dicom_writer import shared_values, write_series
from data.writing.exports import (
    check_export_place,
    export_name,
    export_volume,
    remove_exports,
)
from data.writing.nifti_writer import write_volume
from util.errors import UserError

AFFINES = affines()
# A DICOM series has no handedness of its own: slices are ordered along the cross product.
RIGHT_HANDED = [name for name, one in AFFINES.items() if np.linalg.det(one[:3, :3]) > 0]


def make(folder: Path, name: str, ending: str = ".nii.gz") -> tuple[Path, np.ndarray]:
    array = np.random.default_rng(0).integers(-1024, 3071, (4, 5, 6)).astype(np.int16)
    path = folder / f"SR{ending}"
    write_volume(path, array, AFFINES[name])
    return path, array


@pytest.mark.parametrize("kind", ["nrrd", "mha", "dicom"])
@pytest.mark.parametrize("name", AFFINES)
def test_read_back_to_the_same_geometry_and_values(tmp_path: Path, kind: str, name: str) -> None:
    path, array = make(tmp_path, name)
    volume = read_volume(export_volume(path, kind, path))
    found = np.stack([volume.read_slice(index) for index in range(volume.num_slices)])
    affine = volume.affine
    if kind == "dicom" and name not in RIGHT_HANDED:
        # The same voxels at the same place, counted from the other end.
        found = found[::-1]
        affine = affine @ np.array(
            [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, len(array) - 1], [0, 0, 0, 1.0]]
        )
    np.testing.assert_array_equal(found, array)
    np.testing.assert_allclose(affine, AFFINES[name], atol=2e-4)


@pytest.mark.parametrize("kind", ["nrrd", "mha"])
def test_itk_reads_it_alike(tmp_path: Path, kind: str) -> None:
    path, array = make(tmp_path, "rotated", ".nii")
    image = sitk.ReadImage(str(export_volume(path, kind, path)))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), array)
    original = sitk.ReadImage(str(path))
    np.testing.assert_allclose(image.GetOrigin(), original.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(image.GetSpacing(), original.GetSpacing(), atol=1e-6)
    np.testing.assert_allclose(image.GetDirection(), original.GetDirection(), atol=1e-6)


def tags_of(path: Path) -> dict[str, str]:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return {tag: reader.GetMetaData(tag).strip() for tag in reader.GetMetaDataKeys()}


def test_the_series_is_a_derived_one_with_uids_of_its_own(tmp_path: Path) -> None:
    path, _ = make(tmp_path, "lps")
    source = export_volume(path, "dicom", tmp_path / "patient7.nii.gz")
    first = tags_of(source / "00001.dcm")
    assert first["0010|0020"] == "patient7"
    (tmp_path / "again").mkdir()
    copy, _ = make(tmp_path / "again", "lps")
    # Made from a DICOM series: same patient, study and frame of reference, another series.
    derived = export_volume(copy, "dicom", source)
    told = [tags_of(one) for one in sorted(derived.iterdir())]
    assert len(told) == 4
    for tag in ("0010|0010", "0010|0020", "0020|000d", "0020|0052"):
        assert {one[tag] for one in told} == {first[tag]}
    assert len({one["0020|000e"] for one in told} | {first["0020|000e"]}) == 2
    assert len({one["0008|0018"] for one in told}) == 4
    assert {one["0008|0008"] for one in told} == {"DERIVED\\SECONDARY\\AXIAL"}
    assert {one["0008|0060"] for one in told} == {"CT"}
    assert {one["0008|0016"] for one in told} == {"1.2.840.10008.5.1.4.1.1.2"}
    assert all(one["0020|000e"].startswith("2.25.") for one in told)
    assert all(len(one["0008|0018"]) <= 64 for one in told)


def restate(series: Path, **values: str) -> None:
    """Give elements other values in all files, as another scanner would have written them."""
    for path in series.iterdir():
        header = pydicom.dcmread(path)
        for keyword, value in values.items():
            setattr(header, keyword, value)
        header.save_as(path)


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        ("ISO_IR 192", "Müller^Jörg"),
        ("ISO_IR 100", "Müller^Jörg"),
        ("ISO_IR 144", "Иванов^Пётр"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        ("\\ISO 2022 IR 100", "Müller^Jörg"),
        ("\\ISO 2022 IR 87", "Yamada^Tarou=山田^太郎"),
        ("\\ISO 2022 IR 149", "Hong^Gildong=洪^吉洞"),
    ],
)
def test_names_in_any_character_set_arrive_as_utf8(
    tmp_path: Path, character_set: str, name: str
) -> None:
    path, _ = make(tmp_path, "lps")
    series = export_volume(path, "dicom", tmp_path / "patient7.nii.gz")
    restate(series, SpecificCharacterSet=character_set, PatientName=name)
    assert name.encode() not in next(series.iterdir()).read_bytes() or "192" in character_set
    (tmp_path / "again").mkdir()
    copy, _ = make(tmp_path / "again", "lps")
    first = next(export_volume(copy, "dicom", series).iterdir())
    assert tags_of(first)["0010|0010"] == name
    assert name.encode("utf-8") in first.read_bytes()
    assert tags_of(first)["0008|0005"] == "ISO_IR 192"


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("Müller 肺", "Müller 肺"),
        ("a\\b", "a b"),
        ("x" * 80, "x" * 64),
        ("m\udcfcller", "m\ufffdller"),
        ("a\nb \x1b-Ac", "ab c"),
    ],
)
def test_any_case_name_can_be_written(tmp_path: Path, name: str, stored: str) -> None:
    path, _ = make(tmp_path, "lps")
    first = next(export_volume(path, "dicom", tmp_path / f"{name}.nii.gz").iterdir())
    assert tags_of(first)["0010|0020"] == stored


def test_what_a_series_does_not_state_is_supplied(tmp_path: Path) -> None:
    path, _ = make(tmp_path, "lps")
    series = export_volume(path, "dicom", tmp_path / "patient7.nii.gz")
    restate(series, PatientName="", PatientID="", StudyInstanceUID="", FrameOfReferenceUID="")
    series = series.rename(tmp_path / "blinded")
    (tmp_path / "again").mkdir()
    copy, _ = make(tmp_path / "again", "lps")
    told = [tags_of(one) for one in export_volume(copy, "dicom", series).iterdir()]
    for tag in ("0020|000d", "0020|0052"):
        assert len({one[tag] for one in told}) == 1
        assert told[0][tag].startswith("2.25.")
    for tag in ("0010|0010", "0010|0020"):
        assert {one[tag] for one in told} == {"blinded"}


def test_patient_and_study_come_from_the_first_slice_among_other_things(tmp_path: Path) -> None:
    path, _ = make(tmp_path, "lps")
    series = export_volume(path, "dicom", tmp_path / "patient7.nii.gz")
    series = series.rename(tmp_path / "disc")
    (series / "0.dcm").mkdir()
    (series / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (series / "00000.txt").write_text("notes")
    assert shared_values(series, slices_of(series)).PatientName == "patient7"
    (series / "00000.dcm").write_bytes(b"cut off")
    with pytest.raises(UserError, match=r"00000\.dcm .* copy or export it again"):
        shared_values(series, slices_of(series))


def test_a_folder_that_is_no_series_lends_its_name_alone(tmp_path: Path) -> None:
    path, _ = make(tmp_path, "lps")
    store = tmp_path / "brain.zarr"
    (store / "0").mkdir(parents=True)
    (store / "zarr.json").write_text("{}")
    first = next(export_volume(path, "dicom", store).iterdir())
    assert tags_of(first)["0010|0010"] == "brain"


def test_names() -> None:
    assert export_name("SR.nii.gz", "nrrd") == "SR.nrrd"
    assert export_name("fine.nii", "mha") == "fine.mha"
    assert export_name("SR.nii.gz", "dicom") == "SR_dicom"


@pytest.mark.parametrize("kind", ["nrrd", "mha", "dicom"])
def test_what_is_drawn_by_chance_stands_in_the_description(tmp_path: Path, kind: str) -> None:
    path, _ = make(tmp_path, "lps")
    drawn = "texture 0.12"
    target = export_volume(path, kind, path, drawn)
    first = next(target.iterdir()) if kind == "dicom" else target
    assert f"{data.writing.exports.DESCRIPTION}; {drawn}".encode() in first.read_bytes()
    assert len(f"{data.writing.exports.DESCRIPTION}; 10000 samples") <= 64
    remove_exports(path, tmp_path / "ct.nii")
    assert not target.exists()


@pytest.mark.parametrize("kind", ["nrrd", "dicom"])
def test_a_broken_export_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path, _ = make(tmp_path, "lps")
    target = export_volume(path, kind, path)
    before = sorted(tmp_path.rglob("*"))
    slices = data.writing.exports._slices

    def failing(*words: object) -> object:
        yield next(iter(slices(*words)))  # type: ignore[arg-type]
        raise OSError("no space left")

    monkeypatch.setattr(data.writing.exports, "_slices", failing)
    with pytest.raises(UserError, match="no space left"):
        export_volume(path, kind, path)
    assert sorted(tmp_path.rglob("*")) == before
    assert target.exists()


def test_a_folder_with_other_files_is_not_replaced(tmp_path: Path) -> None:
    path, _ = make(tmp_path, "lps")
    (tmp_path / "SR_dicom").mkdir()
    (tmp_path / "SR_dicom" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        export_volume(path, "dicom", path)
    assert (tmp_path / "SR_dicom" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("kind", ["nrrd", "mha", "dicom"])
def test_what_is_no_export_is_not_replaced(tmp_path: Path, kind: str) -> None:
    path, _ = make(tmp_path, "lps")
    target = tmp_path / export_name(path.name, kind)
    if kind == "dicom":
        target.write_text("mine")
    else:
        target.mkdir()
    with pytest.raises(UserError, match=r"SR.*is a (file or a link|folder), expected .* move"):
        check_export_place(target, kind)
    with pytest.raises(UserError, match="move it away"):
        export_volume(path, kind, path)
    remove_exports(path, tmp_path / "ct.nii")
    assert target.exists()


def test_exports_of_a_result_are_removed_with_it(tmp_path: Path) -> None:
    path, _ = make(tmp_path, "lps")
    for kind in ("nrrd", "mha", "dicom"):
        export_volume(path, kind, path)
    (tmp_path / "SR.txt").write_text("mine")
    remove_exports(path, tmp_path / "ct.nii")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["SR.nii.gz", "SR.txt"]
    remove_exports(path, tmp_path / "ct.nii")


@pytest.mark.parametrize("kind", ["nrrd", "mha"])
def test_a_volume_of_somebody_else_is_not_removed(tmp_path: Path, kind: str) -> None:
    path, array = make(tmp_path, "lps")
    target = tmp_path / export_name(path.name, kind)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(target), useCompression=True)
    remove_exports(path, tmp_path / "ct.nii")
    assert target.is_file()


def test_a_series_of_somebody_else_is_not_removed(tmp_path: Path) -> None:
    path, array = make(tmp_path, "lps")
    series = export_volume(path, "dicom", path)
    scan = tmp_path / "scan"
    scan.mkdir()
    write_series(scan, array, np.eye(4), len(array), path, "ORIGINAL\\PRIMARY\\AXIAL", "chest")
    (scan / "00001.dcm").rename(series / "one of the scanner.dcm")
    remove_exports(path, tmp_path / "ct.nii")
    assert len(list(series.iterdir())) == len(array) + 1


def test_a_link_to_a_series_stays(tmp_path: Path) -> None:
    path, array = make(tmp_path, "lps")
    series = export_volume(path, "dicom", path).rename(tmp_path / "elsewhere")
    link = tmp_path / "SR_dicom"
    link.symlink_to(series)
    with pytest.raises(UserError, match="is a file or a link"):
        check_export_place(link, "dicom")
    remove_exports(path, tmp_path / "ct.nii")
    assert link.is_symlink()
    assert len(list(series.iterdir())) == len(array)


def test_unknown_format(tmp_path: Path) -> None:
    path, _ = make(tmp_path, "lps")
    with pytest.raises(ValueError, match="bmp is not one of"):
        export_volume(path, "bmp", path)


@pytest.mark.parametrize("kind", ["nrrd", "mha", "dicom"])
def test_the_volume_that_a_result_was_made_of_stays(tmp_path: Path, kind: str) -> None:
    path, _ = make(tmp_path, "lps")
    source = export_volume(path, kind, path)  # an export of ours, taken as the next run's input
    remove_exports(path, source)
    assert source.exists()
    remove_exports(path, tmp_path / "ct.nii")
    assert not source.exists()


def test_a_series_of_an_enhanced_file_keeps_its_patient_and_stands_beside_it(
    tmp_path: Path,
) -> None:
    source = tmp_path / "ct.dcm"
    header = enhanced_ct(chest())
    header.PatientName, header.SeriesNumber = "Mustermann^Erika", 2
    header.save_as(source, enforce_file_format=True)
    path, _ = make(tmp_path, "lps")
    series = export_volume(path, "dicom", source, "texture 0.50")
    told = pydicom.dcmread(series / "00001.dcm")
    assert (told.PatientName, told.PatientID) == ("Mustermann^Erika", "7")
    assert (told.StudyInstanceUID, told.SeriesNumber) == ("1.2.9", 200)
    assert told.DerivationDescription.endswith("texture 0.50")
    for keyword in ("Manufacturer", "KVP", "AcquisitionNumber", "PositionReferenceIndicator"):
        assert keyword in told
        assert not told[keyword].value
