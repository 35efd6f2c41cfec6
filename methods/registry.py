"""The registry of test methods, by the name of --method."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

from methods.phantom.method import phantom_benchmark
from methods.restoration.method import clinical_restoration, micro_restoration
from methods.super_resolution.method import super_resolution

TEST_METHODS: dict[str, Callable[[Namespace], int]] = {
    "smallpatchtest": super_resolution,
    "microCTsmallpatchtest": micro_restoration,
    "wholevolumetest": clinical_restoration,
    "phantomtest": phantom_benchmark,
}
