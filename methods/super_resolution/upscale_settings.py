"""How a volume is super-resolved, and what a run that takes it up must share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np

from data.volumes.volume import Volume
from data.windows import IntensityWindow


@dataclass(frozen=True)
class UpscaleSettings:
    """How a volume is super-resolved.

    Attributes:
        lung_statistics: take norm statistics from the lung's pixels instead of the whole slice.
        volume_statistics: pool them over all slices.
        consistency: correct the result so that its area average is the input.
        self_ensemble, uncertainty: see `models.inference.case_enlarger.CaseEnlarger`.
        overwrite: whether existing results may be replaced.
        resume: take up the partial files of an interrupted run.
        output_name: of the result, .nii or .nii.gz.
        determined_by: further facts that the voxels depend on, for the key of the partial files.
    """

    lung_statistics: bool = False
    volume_statistics: bool = False
    consistency: bool = False
    self_ensemble: bool = False
    uncertainty: bool = False
    overwrite: bool = False
    resume: bool = False
    output_name: str = "SR.nii.gz"
    determined_by: Mapping[str, Any] = field(default_factory=dict)

    def key(
        self, volume: Volume, mask: np.ndarray | None, window: IntensityWindow
    ) -> dict[str, Any]:
        """All that the voxels of a result depend on: what a run that takes it up must share."""
        names = ("lung_statistics", "volume_statistics", "consistency", "self_ensemble")
        return {
            **self.determined_by,
            "input, --slices or --region": content_digest(volume, mask),
            **window.as_dict(),
            **{name: getattr(self, name) for name in names},
        }


def content_digest(volume: Volume, mask: np.ndarray | None) -> str:
    """Fingerprint of all voxels in HU and of the mask, 32 hex digits."""
    digest = blake2b(digest_size=16)
    for index in range(volume.num_slices):
        digest.update(np.ascontiguousarray(volume.read_slice(index)).data)
        if mask is not None:
            digest.update(np.packbits(mask[index] != 0).data)
    return digest.hexdigest()
