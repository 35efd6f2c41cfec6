"""What a volume looks like where it is not what was expected: labels, inverted, shifted, 8 bits."""

from __future__ import annotations

import numpy as np

from data.volumes.volume import Volume

LOOKED_AT = (0.3, 0.4, 0.5, 0.6, 0.7)  # slices, as shares of the volume
# Of voxels between a label map's lowest and highest value, so many have a neighbour of the same;
# of CT one in fifty, of 8-bit pictures with hardly any noise one in three.
SAME_AS_NEIGHBOUR = 0.8
AIR, TISSUE = -1000.0, 40.0  # HU
# What programs add to HU so that no value is below 0.
SHIFTS = (1024.0, 2048.0, 32768.0)
BRIGHTER_THAN_BONE = 600.0  # HU: most bone; lung and air of an inverted image have 800 and more
DARKER_THAN_FAT = -400.0  # HU: lung and air; of an inverted image hardly more than bone
MOST_BONE = 0.15  # share of voxels
INVERTED = "an inverted image (air brighter than tissue)"
NEAR = 120.0  # HU that air may be off, for it to count as seen
RIM = 0.05  # share of a slice's edge that lies outside the patient


def looked_at(count: int) -> list[int]:
    """Indices of the slices that tell enough of a volume of so many."""
    return sorted({int(share * count) for share in LOOKED_AT if count})


def holds_labels(slices: np.ndarray) -> bool:
    """Whether slices (count, rows, columns) hold whole numbers from 0 on in closed regions.

    A volume of one value tells nothing, and is none.
    """
    lowest, highest = slices.min(), slices.max()
    if lowest < 0 or lowest == highest or not np.array_equal(slices, np.rint(slices)):
        return False
    between = (slices > lowest) & (slices < highest)
    if not between.any():  # a mask
        return True
    same = (slices[..., 1:] == slices[..., :-1])[between[..., 1:]]
    # Where slices are one pixel wide none has a neighbour.
    return bool(same.size and same.mean() > SAME_AS_NEIGHBOUR)


def appearance(volume: Volume) -> str:
    """In words: the range of a volume that should be CT in HU, and what it looks like instead.

    "values from 0 to 255, like 8-bit pictures", and nothing but the range where nothing is clear.
    """
    slices = np.stack([volume.read_slice(index) for index in looked_at(volume.num_slices)])
    lowest, highest = float(slices.min()), float(slices.max())
    likeness = _likeness(slices, lowest, highest)
    return f"values from {lowest:g} to {highest:g}" + (f", like {likeness}" if likeness else "")


def is_inverted(volume: Volume) -> bool:
    """Whether so much is brighter than bone that it must be air, which tissue should outshine."""
    slices = np.stack([volume.read_slice(index) for index in looked_at(volume.num_slices)])
    return _is_inverted(slices)


def _is_inverted(slices: np.ndarray) -> bool:
    # Of a chest a tenth at most is bone; lung and air around it are a third at least, dark ones
    # where a bright table lies beside them. Padding around a round field has one value, an extreme.
    seen = slices[(slices > slices.min()) & (slices < slices.max())]
    if not seen.size:
        return False
    bright = (seen > BRIGHTER_THAN_BONE).mean()
    return bool(bright > MOST_BONE and bright > (seen < DARKER_THAN_FAT).mean())


def _likeness(slices: np.ndarray, lowest: float, highest: float) -> str:
    if lowest == highest:
        return "an empty image"
    if holds_labels(slices):
        return "a label map"
    if lowest >= 0 and highest <= 255:
        return "8-bit pictures, whose HU are lost"
    # Outside the patient is air; where that is bright and the patient dark, all is the wrong way.
    rows, columns = (max(1, round(RIM * edge)) for edge in slices.shape[1:])
    rim = np.concatenate([slices[:, :rows].ravel(), slices[:, :, :columns].ravel()])
    middle = slices[:, slices.shape[1] // 3 : -(slices.shape[1] // 3) or None]
    if np.median(rim) > np.quantile(middle, 0.75) and highest > TISSUE:
        return INVERTED
    for shift in SHIFTS:
        if abs(np.quantile(slices, 0.02) - (AIR + shift)) < NEAR and highest > AIR + shift + 500:
            return f"HU with about {shift:g} added"
    return INVERTED if _is_inverted(slices) else ""
