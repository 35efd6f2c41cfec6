"""Tests for data/lung_mask.py."""

from __future__ import annotations

import pickle
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from data import lung_mask
from data.formats.readers import read_volume
from data.lung_mask import compute_lung_mask, load_lung_mask
from data.volumes.volume import Volume
from util.errors import UserError

SPACING = (1.5, 1.5, 3.0)
RAS = np.diag([-1.5, -1.5, 3.0, 1.0])


def make_volume(array: np.ndarray, source: str = "scans/case7.nii.gz") -> Volume:
    return Volume(array=array, affine=RAS, source=source)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * np.count_nonzero(one & other) / (one.sum() + other.sum()))


def ellipse(
    x: float, y: float, width: float, height: float, shape: tuple[int, int] = (180, 240)
) -> np.ndarray:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    inside = ((columns - x) / width) ** 2 + ((rows - y) / height) ** 2 <= 1
    assert isinstance(inside, np.ndarray)
    return inside


def chest(slices: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """A chest with noise on a foam table in open air: int16 HU (z, y, x) and its lungs."""
    section = np.full((180, 240), -1000, np.int16)
    section[150:172, 10:230] = 0  # the table's shell ...
    section[152:170, 12:228] = -900  # ... and the foam in it
    section[ellipse(120, 80, 100, 62)] = 40
    lungs = ellipse(75, 78, 38, 48) | ellipse(168, 80, 34, 46)
    section[lungs] = -850
    section[ellipse(120, 70, 5, 5)] = -1000  # trachea, apart from the lungs here
    section[ellipse(150, 32, 6, 4)] = -800  # bowel: gas with content, as light as lung
    section[ellipse(80, 60, 1.5, 1.5)] = 40  # a vessel of 4.5 mm
    array = np.repeat(section[None], slices, axis=0)
    noise = np.random.default_rng(0).normal(0, 20, array.shape)
    mask = np.repeat(lungs[None], slices, axis=0)
    return (array + noise).round().astype(np.int16), mask


@pytest.mark.parametrize("slices", [1, 2, 6])
def test_lungs_are_found_in_open_air_on_a_foam_table(slices: int) -> None:
    array, lungs = chest(slices)
    assert dice(compute_lung_mask(make_volume(array)), lungs) > 0.995


def test_vessels_inside_are_closed() -> None:
    array, _ = chest(2)
    assert compute_lung_mask(make_volume(array))[:, 60, 80].all()


def test_airways_that_join_the_lungs_are_included_up_to_the_nose() -> None:
    array, lungs = chest(6)
    array[2, 66:82, 100:140] = -1000  # main bronchi: both lungs and the trachea are one piece
    array[5, :76, 115:125] = -1000  # the trachea opens to the air outside, as nose and mouth do
    mask = compute_lung_mask(make_volume(array))
    assert mask[:5, 70, 120].all()
    assert not mask[:, 2, 2].any()
    assert not mask[5, :28].any()
    assert dice(mask[:5], lungs[:5]) > 0.95
    # Bowel gas is no second lung where both lungs are one piece.
    assert not mask[:, 32, 150].any()


@pytest.mark.parametrize("cut", [0, 45, 60])
def test_lungs_cut_by_a_tight_crop_are_kept(cut: int) -> None:
    array, lungs = chest(4)
    crop = np.s_[:, 45:150, cut : 240 - cut]
    assert dice(compute_lung_mask(make_volume(array[crop])), lungs[crop]) > 0.99


def test_beside_a_whole_lung_one_cut_in_every_slice_is_left_out() -> None:
    array, lungs = chest(4)
    lungs[..., :120] = False
    mask = compute_lung_mask(make_volume(array[..., 60:]))
    assert dice(mask, lungs[..., 60:]) > 0.99


def test_clothes_and_table_in_a_crops_corners_never_outweigh_small_lungs() -> None:
    array, _ = chest(4)
    array[:, ellipse(75, 78, 60, 60) | ellipse(168, 80, 60, 60)] = 40
    bases = np.repeat((ellipse(75, 110, 25, 8) | ellipse(168, 110, 22, 8))[None], 4, axis=0)
    array[bases] = -850
    array[:, :60, :60] = -880  # a blanket: as light as lung, and larger
    mask = compute_lung_mask(make_volume(array))
    assert dice(mask, bases) > 0.97


def test_scanners_own_padding_does_not_matter() -> None:
    array, lungs = chest(3)
    array[:, ~ellipse(120, 90, 118, 88)] = -3024
    assert dice(compute_lung_mask(make_volume(array)), lungs) > 0.995


def test_stored_values_are_taken_with_slope_and_intercept() -> None:
    array, lungs = chest(2)
    stored = ((array + 1024) * 2).clip(0).astype(np.uint16)
    volume = Volume(stored, RAS, "ct.nii.gz", slope=0.5, intercept=-1024.0)
    assert dice(compute_lung_mask(volume), lungs) > 0.995


@pytest.mark.parametrize("value", [-1000, 40, 200])
def test_volume_without_lung_is_refused_with_a_remedy(value: int) -> None:
    array = np.full((3, 60, 60), value, np.int16)
    if value == 200:
        array[1, 30, 30] = -1000  # a speck of gas
    with pytest.raises(UserError) as caught:
        compute_lung_mask(make_volume(array))
    for part in ("no lung found", "scans/case7.nii.gz", "or a mask", "--region all"):
        assert part in str(caught.value)


def test_memory_stays_near_five_bytes_a_voxel() -> None:
    array, _ = chest(40)
    volume = make_volume(array)
    tracemalloc.start()
    compute_lung_mask(volume)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # 512x512x300 at 8 bytes is 0.6 GB; one slice's working arrays are the rest.
    assert peak < 8 * array.size


@pytest.mark.shared
@pytest.mark.parametrize("case", ["LIDC-IDRI-0001", "LIDC-IDRI-0002"])
def test_agrees_with_the_reference_masks(shared_data: Path, case: str) -> None:
    volume = read_volume(shared_data / "clinical" / f"{case}_lungbox.nii.gz")
    reference = read_volume(shared_data / "clinical" / f"{case}_lungbox_mask.nii.gz").array > 0
    assert dice(compute_lung_mask(volume), reference) > 0.99


@pytest.mark.shared
def test_few_slices_at_the_lungs_bases_agree_with_the_reference(shared_data: Path) -> None:
    # Here the corners hold more open air, clothes and table than there is lung.
    case = shared_data / "clinical" / "LIDC-IDRI-0001_lungbox"
    volume = read_volume(f"{case}.nii.gz").select_slices(12, 24)
    reference = read_volume(f"{case}_mask.nii.gz").array[12:24] > 0
    assert 0 < reference.mean() < 0.1
    assert dice(compute_lung_mask(volume), reference) > 0.95


@pytest.mark.shared
def test_whole_slices_of_a_dicom_series_agree_with_the_reference(shared_data: Path) -> None:
    series = read_volume(shared_data / "clinical" / "LIDC-IDRI-0001_dicom_24slices")
    reference = read_volume(shared_data / "clinical" / "LIDC-IDRI-0001_lungbox_mask.nii.gz")
    # Where the crop's first voxel lies in the series.
    corner = np.linalg.solve(series.affine, reference.affine[:, 3])[:3].round().astype(int)
    columns, rows, _ = reference.size
    mask = compute_lung_mask(series)
    inside = mask[:, corner[1] : corner[1] + rows, corner[0] : corner[0] + columns]
    same = reference.array[-corner[2] : -corner[2] + series.num_slices] > 0
    assert dice(inside, same) > 0.99
    assert np.count_nonzero(mask) == np.count_nonzero(inside)


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray = RAS) -> None:
    """Write a (z, y, x) array."""
    nib.save(nib.Nifti1Image(array.transpose(2, 1, 0), affine), path)


def write_case(folder: Path) -> Volume:
    array, _ = chest(3)
    write_nifti(folder / "scan7.nii.gz", array)
    return read_volume(folder / "scan7.nii.gz")


def some_mask(dtype: type = np.uint8) -> np.ndarray:
    mask: np.ndarray = np.zeros((3, 180, 240), dtype)
    mask[1:, 20:90, 30:60] = 1
    return mask


def test_mask_beside_the_ct_is_taken_and_mapped(tmp_path: Path) -> None:
    volume = write_case(tmp_path)
    write_nifti(tmp_path / "scan7_mask.nii.gz", some_mask())
    mask = load_lung_mask(volume)
    assert isinstance(mask, np.memmap)
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, some_mask())


def test_mask_folder_goes_before_the_cts_own(tmp_path: Path) -> None:
    volume = write_case(tmp_path)
    write_nifti(tmp_path / "scan7_mask.nii.gz", some_mask())
    other = np.roll(some_mask(), 5, axis=2)
    (tmp_path / "masks").mkdir()
    write_nifti(tmp_path / "masks" / "scan7_mask.nii.gz", other)
    assert np.array_equal(load_lung_mask(volume, tmp_path / "masks"), other)
    with pytest.raises(UserError, match=r"mask folder .*nowhere does not exist"):
        load_lung_mask(volume, tmp_path / "nowhere")


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_voxels_above_zero_are_lung(tmp_path: Path, dtype: type) -> None:
    volume = write_case(tmp_path)
    labels = some_mask(dtype) * 7 - 3  # 4 in the lung, -3 outside
    write_nifti(tmp_path / "scan7_mask.nii.gz", labels)
    mask = load_lung_mask(volume)
    assert isinstance(mask, np.memmap)
    assert np.array_equal(mask != 0, some_mask() > 0)


@pytest.mark.parametrize("axes", ["LPS", "LAS", "RPI", "SRA", "PSL"])
def test_a_mask_whose_axes_run_another_way_is_turned(tmp_path: Path, axes: str) -> None:
    volume = write_case(tmp_path)
    stored = nib.Nifti1Image(some_mask().transpose(2, 1, 0), volume.affine)
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(stored.affine), nib.orientations.axcodes2ornt(axes)
    )
    nib.save(stored.as_reoriented(turn), tmp_path / "scan7_mask.nii")
    assert np.array_equal(load_lung_mask(volume), some_mask() > 0)


def test_a_mask_in_its_place_is_not_turned_near_45_degrees(tmp_path: Path) -> None:
    def turned(degrees: float) -> np.ndarray:
        cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        rotation = np.array(
            [[cosine, -sine, 0, 0], [sine, cosine, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
        )
        return np.asarray(rotation @ RAS)

    write_nifti(tmp_path / "ct.nii", chest(3)[0], turned(44.9999))
    write_nifti(tmp_path / "ct_mask.nii", some_mask(), turned(45.0001))
    assert np.array_equal(load_lung_mask(read_volume(tmp_path / "ct.nii")), some_mask())


@pytest.mark.parametrize("values", ["the CT", "the CT, 1024 higher"])
def test_an_image_is_no_mask(tmp_path: Path, values: str) -> None:
    volume = write_case(tmp_path)
    higher = 0 if values == "the CT" else 1024
    copy = np.asarray(volume.array).astype(np.int16) + np.int16(higher)
    write_nifti(tmp_path / "scan7_mask.nii.gz", copy)
    with pytest.raises(UserError, match="like an image: a mask has 0 outside"):
        load_lung_mask(volume)


def test_mask_on_another_grid_is_refused_naming_both_files(tmp_path: Path) -> None:
    volume = write_case(tmp_path)
    path = tmp_path / "scan7_mask.nii.gz"
    write_nifti(path, some_mask()[:2])
    with pytest.raises(UserError) as caught:
        load_lung_mask(volume)
    assert str(caught.value) == (
        f"mask {path} has size (240, 180, 2), its CT {tmp_path / 'scan7.nii.gz'} has "
        "(240, 180, 3): give a mask made on the same grid"
    )


@pytest.mark.parametrize("kind", ["shifted", "stretched", "in another slice"])
def test_mask_in_another_place_is_refused(tmp_path: Path, kind: str) -> None:
    volume = write_case(tmp_path)
    affine = RAS.copy()
    if kind == "shifted":
        affine[1, 3] += 0.02
    elif kind == "stretched":
        affine[0, 0] *= 1.0001
    else:
        affine[:3, 3] += affine[:3, 2]
    write_nifti(tmp_path / "scan7_mask.nii.gz", some_mask(), affine)
    with pytest.raises(UserError, match=r"scan7_mask\.nii\.gz lies up to .* mm away .*scan7\.nii"):
        load_lung_mask(volume)


def test_a_hair_of_rounding_in_the_affine_is_accepted(tmp_path: Path) -> None:
    volume = write_case(tmp_path)
    affine = RAS.copy()
    affine[1, 3] += 0.005
    write_nifti(tmp_path / "scan7_mask.nii.gz", some_mask(), affine)
    assert load_lung_mask(volume).any()


def test_mask_without_a_voxel_is_refused(tmp_path: Path) -> None:
    volume = write_case(tmp_path)
    write_nifti(tmp_path / "scan7_mask.nii.gz", np.zeros((3, 180, 240), np.uint8))
    with pytest.raises(UserError, match=r"scan7_mask\.nii\.gz of .*scan7.* has no voxel set"):
        load_lung_mask(volume)


def test_whole_mask_is_refused_for_a_volume_cut_before(tmp_path: Path) -> None:
    volume = write_case(tmp_path)
    write_nifti(tmp_path / "scan7_mask.nii.gz", some_mask())
    with pytest.raises(UserError, match=r"has size \(240, 180, 3\), .* has \(240, 180, 1\)"):
        load_lung_mask(volume.select_slices(1, 2))


def test_computed_mask_is_kept_and_follows_the_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = write_case(tmp_path)
    calls: list[str] = []

    def spy(given: Volume) -> np.ndarray:
        calls.append(given.source)
        return compute_lung_mask(given)

    monkeypatch.setattr(lung_mask, "compute_lung_mask", spy)
    first = load_lung_mask(volume, cache_dir=tmp_path / "cache")
    again = load_lung_mask(volume, cache_dir=tmp_path / "cache")
    assert len(calls) == 1
    assert isinstance(again, np.memmap)
    assert np.array_equal(first != 0, compute_lung_mask(volume))
    assert np.array_equal(first, again)
    part = load_lung_mask(volume.select_slices(0, 2), cache_dir=tmp_path / "cache")
    assert len(calls) == 2
    assert part.shape == (2, 180, 240)


def test_nothing_is_kept_where_no_lung_is_found(tmp_path: Path) -> None:
    volume = make_volume(np.full((2, 40, 40), 40, np.int16))
    with pytest.raises(UserError, match="no lung found"):
        load_lung_mask(volume, cache_dir=tmp_path / "cache")
    assert not any((tmp_path / "cache").glob("[!.]*"))


def test_mapped_mask_can_be_cut_and_sent_to_workers_in_a_volume(tmp_path: Path) -> None:
    mask = load_lung_mask(write_case(tmp_path))
    stored = pickle.dumps(make_volume(mask[1:]))
    assert len(stored) < 2000
    assert np.array_equal(pickle.loads(stored).array, mask[1:])
