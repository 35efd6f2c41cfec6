from __future__ import annotations

from training.given_weights import unlike_windows


def test_weights_that_know_tissue_by_other_values_are_told_of() -> None:
    known = {"normalization": "window", "clinical": {"low": -1000.0, "high": 500.0}}
    assert unlike_windows(known, known) is None
    assert unlike_windows(None, known) is None  # a bare state dict does not say
    wider = {"normalization": "window", "clinical": {"low": -1024.0, "high": 600.0}}
    told = "were made for clinical CT in -1000:500 HU, got -1024:600 HU"
    assert unlike_windows(known, wider) == told
    ranges = unlike_windows(known, {**known, "normalization": "minmax"})
    assert "got each volume's range" in str(ranges)
