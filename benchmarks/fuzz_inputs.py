"""Small valid inputs of every format, and ways to damage them; see benchmarks/fuzz.py."""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813 - the library's own short name
import tifffile
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import RLELossless

from data.writing.dicom_writer import write_series

AFFINE = np.array([[-0.7, 0, 0, 20], [0, -0.8, 0, 30], [0, 0, 1.5, -100], [0, 0, 0, 1.0]])
LPS = np.diag([-1.0, -1.0, 1.0, 1.0]) @ AFFINE
EXTREMES = (0, 1, 2, 3, 127, 128, 255, 256, 65535, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
HEADER_BYTES = 700
WORDS = ("-1", "0", "1e308", "nan", "inf", "99999999999", "1,5", "x", "", "none", "2147483648")


def voxels() -> np.ndarray:
    """HU (4, 20, 24): tissue around air, with noise."""
    values = np.random.default_rng(0).normal(40, 15, (4, 20, 24))
    values[:, 5:15, 4:12] -= 890
    return values.round().astype(np.int16)


def dicom(folder: Path) -> None:
    folder.mkdir()
    write_series(folder, iter(voxels()), LPS, 4, folder, "ORIGINAL\\PRIMARY\\AXIAL", "chest")


def dicom_packed(folder: Path) -> None:
    dicom(folder)
    for path in folder.iterdir():
        header = pydicom.dcmread(path)
        header.compress(RLELossless)
        header.save_as(path)


def dicom_jpeg2000(folder: Path) -> None:
    dicom(folder)
    for path in sorted(folder.iterdir()):
        kept = pydicom.dcmread(path)
        writer = sitk.ImageFileWriter()
        writer.SetUseCompression(True)
        writer.SetCompressor("JPEG2000")
        writer.SetFileName(str(path))
        writer.Execute(sitk.GetImageFromArray(kept.pixel_array[None]))
        packed = pydicom.dcmread(path)
        kept.file_meta.TransferSyntaxUID = packed.file_meta.TransferSyntaxUID
        kept.PixelData = packed.PixelData
        kept.save_as(path)


def dicom_enhanced(folder: Path) -> None:
    dicom(folder)
    first, *others = sorted(folder.iterdir())
    header = pydicom.dcmread(first)
    frames = []
    for path in (first, *others):
        position = Dataset()
        position.ImagePositionPatient = pydicom.dcmread(path).ImagePositionPatient
        frame = Dataset()
        frame.PlanePositionSequence = Sequence([position])
        frames.append(frame)
    header.PixelData = voxels().astype("<i2").tobytes()
    header.NumberOfFrames = len(frames)
    header.PerFrameFunctionalGroupsSequence = Sequence(frames)
    header.save_as(first)
    for path in others:
        path.unlink()


def nifti(folder: Path, name: str = "ct.nii") -> None:
    folder.mkdir()
    kind = nib.Nifti1Pair if name.endswith(".hdr") else nib.Nifti1Image
    nib.save(kind(voxels().transpose(2, 1, 0), AFFINE), folder / name)


def masked(folder: Path) -> None:
    nifti(folder)
    mask = np.zeros(voxels().shape, np.uint8)
    mask[:, 5:15, 4:12] = 1
    nib.save(nib.Nifti1Image(mask.transpose(2, 1, 0), AFFINE), folder / "ct_mask.nii.gz")


def by_itk(folder: Path, name: str, packed: bool) -> None:
    folder.mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(voxels()), str(folder / name), packed)


def tiff(folder: Path, **options: object) -> None:
    folder.mkdir()
    stored = ((voxels() + 1100) // 3).astype(np.uint16)  # within the clinical window
    plain = {} if {"imagej", "ome"} & set(options) else {"photometric": "minisblack"}
    tifffile.imwrite(folder / "ct.tif", stored, **plain, **options)  # type: ignore[arg-type]


def stack(folder: Path, ending: str) -> None:
    folder.mkdir()
    for index, section in enumerate(voxels()):
        grey = np.clip((section + 1024) / 8, 0, 255).astype(np.uint8)
        path = folder / f"s{index:03d}.{ending}"
        if ending == "tif":
            tifffile.imwrite(path, grey, photometric="minisblack", compression="deflate")
        else:
            Image.fromarray(grey).save(path)
    (folder / "s.log").write_text("[Reconstruction]\nPixel Size (um)=20\n")


def zarr_store(folder: Path, version: int) -> None:
    import zarr

    folder.mkdir()
    group = zarr.open_group(
        str(folder / "ct.zarr"),
        mode="w",
        zarr_format=version,  # type: ignore[arg-type]
    )
    array = group.create_array("0", shape=voxels().shape, chunks=(2, 20, 24), dtype="i2")
    array[:] = voxels()
    axes = [{"name": name, "type": "space", "unit": "millimeter"} for name in "zyx"]
    scale = [{"type": "scale", "scale": [1.5, 0.8, 0.7]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    image: Any = {"version": "0.4", "axes": axes, "datasets": datasets}
    group.attrs["multiscales"] = [image]


Maker = Callable[[Path], None]
MAKERS: dict[str, Maker] = {
    "dicom": dicom,
    "dicom, RLE": dicom_packed,
    "dicom, JPEG 2000": dicom_jpeg2000,
    "dicom, enhanced": dicom_enhanced,
    "nii": nifti,
    "nii.gz": lambda folder: nifti(folder, "ct.nii.gz"),
    "hdr and img": lambda folder: nifti(folder, "ct.hdr"),
    "nii with mask": masked,
    "nrrd": lambda folder: by_itk(folder, "ct.nrrd", False),
    "nrrd, gzip": lambda folder: by_itk(folder, "ct.nrrd", True),
    "nhdr": lambda folder: by_itk(folder, "ct.nhdr", False),
    "mha": lambda folder: by_itk(folder, "ct.mha", False),
    "mhd, zlib": lambda folder: by_itk(folder, "ct.mhd", True),
    "tiff": tiff,
    "tiff, deflate": lambda folder: tiff(folder, compression="deflate"),
    "tiff, LZW": lambda folder: tiff(folder, compression="lzw"),
    "tiff, ImageJ": lambda folder: tiff(folder, imagej=True, metadata={"axes": "ZYX"}),
    "tiff, OME": lambda folder: tiff(folder, ome=True, metadata={"axes": "ZYX"}),
    "tiff stack": lambda folder: stack(folder, "tif"),
    "png stack": lambda folder: stack(folder, "png"),
    "bmp stack": lambda folder: stack(folder, "bmp"),
    "jp2 stack": lambda folder: stack(folder, "jp2"),
    "zarr 2": lambda folder: zarr_store(folder, 2),
    "zarr 3": lambda folder: zarr_store(folder, 3),
}


# ---- damage: each takes a file's bytes and a source of chance, and gives other bytes ----


def flip_bits(content: bytes, chance: Random, most: int | None = None) -> bytes:
    """Some bits somewhere, or among the first `most` bytes."""
    damaged = bytearray(content)
    for _ in range(chance.choice((1, 2, 8, 40))):
        if damaged:
            place = chance.randrange(min(len(damaged), most or len(damaged)))
            damaged[place] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def flip_header(content: bytes, chance: Random) -> bytes:
    return flip_bits(content, chance, HEADER_BYTES)


def cut(content: bytes, chance: Random) -> bytes:
    return content[: chance.randrange(len(content) + 1)]


def grow(content: bytes, chance: Random) -> bytes:
    more = chance.choice((content, bytes(chance.randrange(1, 5000)), chance.randbytes(100)))
    place = chance.choice((len(content), chance.randrange(len(content) + 1)))
    return content[:place] + more + content[place:]


def overwrite_number(content: bytes, chance: Random) -> bytes:
    """An integer of one, two, four or eight bytes in the header, of either byte order."""
    form = chance.choice("BHIQ")
    size = struct.calcsize(form)
    if len(content) < size:
        return content
    damaged = bytearray(content)
    place = chance.randrange(min(len(content), HEADER_BYTES) - size + 1)
    number = chance.choice(EXTREMES) % (1 << (8 * size))
    struct.pack_into(chance.choice("<>") + form, damaged, place, number)
    return bytes(damaged)


def overwrite_text(content: bytes, chance: Random) -> bytes:
    """A number that is written as text (NRRD, MetaImage, DICOM, OME-XML, JSON, logs)."""
    numbers = list(re.finditer(rb"-?[0-9]+(\.[0-9]+)?", content[:8000]))
    if not numbers:
        return flip_header(content, chance)
    found = chance.choice(numbers)
    word = chance.choice(WORDS).encode()
    if chance.random() < 0.5:  # as long as before, where lengths are stated elsewhere
        word = word[: len(found[0])].ljust(len(found[0]))
    return content[: found.start()] + word + content[found.end() :]


def swap_blocks(content: bytes, chance: Random) -> bytes:
    if len(content) < 64:
        return content
    one, other = sorted(chance.sample(range(len(content) - 16), 2))
    block = chance.randrange(1, 16)
    damaged = bytearray(content)
    damaged[one : one + block] = content[other : other + block]
    damaged[other : other + block] = content[one : one + block]
    return bytes(damaged)


def bomb(content: bytes, chance: Random) -> bytes:
    """A packed file that unpacks to far more than it promises; other damage where it is none."""
    try:
        head = zlib.decompress(content, 47)[:352]
    except zlib.error:
        return overwrite_number(content, chance)
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(head + bytes(chance.choice((1 << 20, 1 << 27)))) + packer.flush()


def nest(content: bytes, chance: Random) -> bytes:
    """JSON of great depth, or damage to it; other damage where it is none."""
    try:
        value = json.loads(content)
    except ValueError:
        return overwrite_text(content, chance)
    if not isinstance(value, dict) or not value:
        return content
    key = chance.choice(list(value))
    depth = 5000
    other = chance.choice(("null", "[]", "{}", '"x"', "-1", "[" * depth + "]" * depth))
    kept = {name: one for name, one in value.items() if name != key}
    return json.dumps(kept)[:-1].encode() + f', "{key}": {other}}}'.encode()


DAMAGE = (
    flip_bits,
    flip_header,
    flip_header,
    cut,
    grow,
    overwrite_number,
    overwrite_number,
    overwrite_text,
    overwrite_text,
    swap_blocks,
    bomb,
    nest,
)


def damage_one(folder: Path, chance: Random) -> str:
    """Damage one file of a case, or several times; returns what was done."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    done = []
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        path = chance.choice(files)
        if not path.exists():
            continue
        if chance.random() < 0.03:
            path.unlink()
            done.append(f"{path.name} removed")
            continue
        how = chance.choice(DAMAGE)
        path.write_bytes(how(path.read_bytes(), chance))
        done.append(f"{path.name} {how.__name__}")
    return ", ".join(done)
