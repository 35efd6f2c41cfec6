"""How far to trust a result: the scan is compared, and the image gets a word."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from data.volumes.volume import Volume
from methods.loading import LoadedModel
from methods.trust_report import check_scan, facts_for_page, judge, word_of
from util.images.resampling import enlarge

LUNG = np.random.default_rng(0).normal(-850, 20, (32, 32)).astype(np.float32)


def model_that_knows(scans: dict[str, list[float]] | None) -> LoadedModel:
    return cast(LoadedModel, SimpleNamespace(loaded=SimpleNamespace(scans=scans)))


def cubic(image: np.ndarray, section: np.ndarray | None) -> np.ndarray:
    return enlarge(image, 4, order=3)


def test_a_scan_beyond_what_the_weights_know_is_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    volume = Volume(np.stack([LUNG] * 2), np.diag([0.98, 0.98, 2.5, 1.0]), "far.nii")
    known = {"pixel_size": [0.4, 0.9], "slice_spacing": [0.5, 0.5], "noise": [0.0, 75.0]}
    seen = check_scan(volume, None, model_that_knows(known))
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "far has pixels of 0.98 mm (0.4 to 0.9), slices every 2.5 mm (0.5); in" in error
    assert seen["outside"] == "pixels of 0.98 mm (0.4 to 0.9); slices every 2.5 mm (0.5)"
    assert seen["scan"]["pixel_size"] == 0.98
    assert seen["scan"]["noise"] == pytest.approx(20, rel=0.3)


def test_weights_that_do_not_say_what_they_know_bring_no_warning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    volume = Volume(np.stack([LUNG] * 2), np.diag([9.0, 9.0, 9.0, 1.0]), "far.nii")
    seen = check_scan(volume, None, model_that_knows(None))
    assert (seen["weights_know"], seen["outside"]) == (None, None)
    assert not capsys.readouterr().err
    assert "do not say" in facts_for_page(seen)["beyond what the weights know"]


def test_cubic_interpolation_is_calm(capsys: pytest.CaptureFixture[str]) -> None:
    section = np.zeros(LUNG.shape, bool)
    section[:, :16] = True
    seen: list[np.ndarray] = []

    def watched(image: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        assert mask is not None
        seen.append(mask)
        return cubic(image, mask)

    trust = judge(watched, LUNG, cubic(LUNG, None), section, "case")
    assert trust is not None
    assert np.array_equal(seen[0], section[:, ::-1])  # the mirrored scan's lung
    assert np.array_equal(seen[1], section)
    assert trust["word"] == "calm"
    assert trust["flip_hu"] == pytest.approx(0, abs=1e-2)
    assert 0.5 < trust["noise_gain"] < 1.2
    assert capsys.readouterr().out.startswith("case: calm (flip 0.0 HU, noise gain ")
    assert facts_for_page({"trust": trust})["the image"] == "calm: the image is stable"


def test_an_image_that_follows_the_noise_is_not_trusted() -> None:
    def shouting(image: np.ndarray, section: np.ndarray | None) -> np.ndarray:
        return 9 * (enlarge(image, 4, order=3) + 850)

    trust = judge(shouting, LUNG, shouting(LUNG, None), None, "case")
    assert trust is not None
    assert trust["word"] == "do not trust"


def test_a_slice_without_lung_gets_no_word() -> None:
    nothing = np.zeros(LUNG.shape, bool)
    assert judge(cubic, LUNG, cubic(LUNG, None), nothing, "case") is None
    air = np.full_like(LUNG, -1024.0)
    assert judge(cubic, air, cubic(air, None), None, "case") is None


@pytest.mark.parametrize(
    ("figures", "word"),
    [
        ((10.0, 2.5, 2.0), "calm"),
        ((10.1, 1.0, 0.1), "careful"),
        ((1.0, 2.6, 0.1), "careful"),
        ((1.0, 1.0, 6.1), "do not trust"),
        ((15.1, 1.0, 0.1), "do not trust"),
    ],
)
def test_words_by_their_borders(figures: tuple[float, ...], word: str) -> None:
    names = ("flip_hu", "noise_gain", "lattice_hu")
    assert word_of(dict(zip(names, figures, strict=True))) == word
