"""What stands in the folder of unpacked volumes."""

from __future__ import annotations

import os
from pathlib import Path

from data.volumes.mapping import mapped_region
from data.volumes.volume import Volume


def cache_files() -> list[Path]:
    cache = Path(os.environ["SR_CYCLEGAN_CACHE"])
    return list(cache.glob("[!.]*")) if cache.exists() else []


def in_cache(volume: Volume) -> bool:
    region = mapped_region(volume.array)
    assert region is not None
    return region.path.startswith(os.environ["SR_CYCLEGAN_CACHE"])
