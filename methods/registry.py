"""The registry of test methods, by the name of --method."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

from methods.inputs import alone
from methods.restoration.method import clinical_restoration, micro_restoration
from methods.stability.method import stability
from methods.super_resolution.method import super_resolution
from methods.truth.pair_method import pair_benchmark
from methods.truth.phantom_method import phantom_benchmark

TEST_METHODS: dict[str, Callable[[Namespace], int]] = {
    "smallpatchtest": super_resolution,
    "stabilitytest": stability,
    "microCTsmallpatchtest": micro_restoration,
    "wholevolumetest": clinical_restoration,
    "phantomtest": alone(phantom_benchmark),
    "pairtest": alone(pair_benchmark),
}
