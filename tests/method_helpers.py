"""A stand-in for the super-resolver, and volumes with any geometry, for the test methods."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import nibabel as nib
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from data.volumes.geometry import corners
from data.windows import CLINICAL_WINDOW, IntensityWindow, WindowPolicy
from data.writing.nifti_writer import write_volume
from methods.loading import LoadedModel, norm_pixels
from models.checkpoints.checkpoint import LoadedGenerator, save_checkpoint
from models.inference.slice_jobs import SliceJob
from models.inference.super_resolver import SuperResolver
from models.networks import SRGenerator
from util.images.resampling import enlarge

SPACING = (0.7, 0.5, 1.25)
MICRO_WINDOW = IntensityWindow(0, 10000)
POLICY = WindowPolicy("window", CLINICAL_WINDOW, MICRO_WINDOW)


def save_generator(path: Path, network: SRGenerator) -> None:
    """Write a checkpoint of an SR generator, as if it had been trained unpaired."""
    save_checkpoint(
        path,
        {
            "architecture": network.architecture,
            "networks": {"G_A": network.state_dict()},
            "windows": POLICY.as_dict(),
            "training_digests": [],
            "position": {"step": 3},
            "options": {"dataset_mode": "unpaired"},
        },
    )


class IdentityResolver:
    """Enlarges by repeated pixels, so that its area average is the input; counts its calls.

    Args:
        scale: 2^n.
        fail_at: number of the call, from 0, that raises MemoryError.
        shift: added to every value, to tell the result from an interpolation.
    """

    device = torch.device("cpu")
    backend = "stub"
    precision = "fp32"
    tile_size = None
    has_texture = False
    max_memory = 10**9
    engine = SimpleNamespace(band_values=1)

    def __init__(self, scale: int = 2, fail_at: int | None = None, shift: float = 0.0) -> None:
        self.scale = scale
        self.fail_at = fail_at
        self.shift = shift
        self.inputs: list[np.ndarray] = []
        self.scopes: list[np.ndarray | None] = []
        self.needed: list[np.ndarray | None] = []

    def upscale_slices(self, jobs: Iterable[SliceJob | None]) -> Iterator[np.ndarray | None]:
        for job in jobs:
            yield None if job is None else self.upscale_slice(job.image, job.scope, job.needed)

    def upscale_slice(
        self,
        image: np.ndarray,
        scope: np.ndarray | None = None,
        needed: np.ndarray | None = None,
    ) -> np.ndarray:
        if len(self.inputs) == self.fail_at:
            raise MemoryError("out of memory")
        self.inputs.append(image)
        self.scopes.append(scope)
        self.needed.append(needed)
        return enlarge(image, self.scale, order=0) + np.float32(self.shift)

    def group_size(self, rows: int, columns: int) -> int:
        return 1

    def free_budget(self) -> int:
        return self.max_memory

    def use_statistics(self, slices: object) -> None:
        """Nothing is normalised here."""


class Forgetful(IdentityResolver):
    """The same without keeping any slice, for tests of memory."""

    def upscale_slice(
        self,
        image: np.ndarray,
        scope: np.ndarray | None = None,
        needed: np.ndarray | None = None,
    ) -> np.ndarray:
        return enlarge(image, self.scale, order=0)


def as_resolver(stub: IdentityResolver) -> SuperResolver:
    return cast(SuperResolver, stub)


def stub_model(
    stub: IdentityResolver, options: Namespace, digests: frozenset[str] = frozenset()
) -> LoadedModel:
    """What `load_model` would return for a model of unpaired training, with the stand-in."""
    generator = SRGenerator(1, ngf=2, blocks=1)
    trained = {"dataset_mode": "unpaired"}
    loaded = LoadedGenerator(generator, POLICY.as_dict(), digests, Path("stub.pt"), 7, trained)
    return LoadedModel(loaded, as_resolver(stub), POLICY, *norm_pixels(loaded, options))


def affines() -> dict[str, np.ndarray]:
    """Anisotropic, rotated and mirrored geometries, all far from the origin."""
    plain = np.diag([*SPACING, 1.0])
    lps = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
    flipped = np.diag([SPACING[0], -SPACING[1], -SPACING[2], 1.0])
    rotated = np.eye(4)
    rotated[:3, :3] = Rotation.from_euler("xyz", (20, -35, 100), degrees=True).as_matrix() * SPACING
    mirrored = rotated @ np.diag([-1.0, 1.0, 1.0, 1.0])
    # An oblique gantry: slices in another order of the world's axes, the third one downwards.
    swapped = np.array(
        [[0, 0, SPACING[2], 0], [-SPACING[0], 0, 0, 0], [0, SPACING[1], 0, 0], [0, 0, 0, 1.0]]
    )
    found = {
        "anisotropic": plain,
        "lps": lps,
        "flipped": flipped,
        "rotated": rotated,
        "mirrored": mirrored,
        "swapped": swapped,
    }
    for number, affine in enumerate(found.values()):
        affine[:3, 3] = (-120.5 + number, 310.25, -45.0 * number)
    return found


def soft_volume(size: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """int16 (z, y, x) that stays within the clinical window, cubic overshoot included."""
    x, y, z = size
    return np.random.default_rng(seed).integers(-700, 100, (z, y, x)).astype(np.int16)


def lung_like(size: tuple[int, int, int]) -> np.ndarray:
    """int16 (z, y, x): smooth texture, so that neighbours differ by more than rounding."""
    x, y, z = size
    rows, columns = np.mgrid[:y, :x]
    wave = np.sin(rows / 3.0) * np.cos(columns / 4.0)
    return np.stack([-650 + 250 * wave + 10 * index for index in range(z)]).astype(np.int16)


def write_ct(
    path: Path, array: np.ndarray, affine: np.ndarray, mask: np.ndarray | None = None
) -> Path:
    """Write a CT, and its lung mask beside it (everywhere, where none is given)."""
    write_volume(path, array, affine)
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    shown = np.ones_like(array) if mask is None else mask
    write_volume(path.with_name(f"{stem}_mask.nii.gz"), shown.astype(np.int16), affine)
    return path


def read_nifti(path: Path) -> tuple[np.ndarray, Any]:
    """Voxels as (z, y, x), and the image."""
    image: Any = nib.load(path)
    return np.asarray(image.dataobj).transpose(2, 1, 0), image


def corner_distance(first: Any, second: Any) -> float:
    """Largest distance in mm between the corners of two images, by sform and by qform."""
    return max(
        float(np.abs(corners(a, first.shape) - corners(b, second.shape)).max())
        for a in (first.get_sform(), first.get_qform())
        for b in (second.get_sform(), second.get_qform())
    )


def block_means(array: np.ndarray, scale: int) -> np.ndarray:
    """Area average of every slice (z, y, x)."""
    z, y, x = array.shape
    blocks = array.reshape(z, y // scale, scale, x // scale, scale).astype(np.float64)
    return blocks.mean(axis=(2, 4))


def quick_picture(path: Path, *rest: object) -> None:
    """In place of `comparison_picture`, whose drawing takes longer than a whole tiny run."""
    path.write_bytes(b"a picture")
