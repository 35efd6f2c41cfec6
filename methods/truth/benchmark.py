"""Score methods on cases with a truth, and write the report: what both benchmarks share."""

from __future__ import annotations

import os
import time
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.truth_case import TruthCase
from data.windows import CLINICAL_WINDOW
from methods.inputs import refuse_existing
from methods.loading import LoadedModel
from methods.pages.result_page import PAGE, may_fail
from methods.truth.opponents import Method
from methods.truth.pages import INPUT, TRUTH, write_patient_page
from methods.truth.report import PatientPicture, Report, output_names
from methods.truth.scanner_matrix import ScannerMatrix
from methods.truth.scores import CaseScores, Scorer
from methods.truth.trust import trust_measures
from util.errors import UserError
from util.progress import progress
from util.run_record import write_run_record

SHOWN = 5  # patients in the report's pictures, one of each kind of the phantom


class Benchmark:
    """Methods that are scored case by case.

    Args:
        options: of the run.
        models: those of the methods that are models, by name.
        methods: all of them.
    """

    def __init__(
        self,
        options: Namespace,
        models: Mapping[str, LoadedModel],
        methods: Sequence[Method],
    ) -> None:
        self._options, self._prefix = options, prefix_of(options)
        self._models, self._methods = models, methods
        self._scores: list[CaseScores] = []
        self._pictures: list[PatientPicture] = []
        self._seconds = dict.fromkeys((method.name for method in methods), 0.0)
        first = next(iter(models.values()))
        self._device = str(first.resolver.device)

    def add(self, cases: Iterable[TruthCase], count: int) -> None:
        """Enlarge and score so many cases by all methods.

        Raises:
            UserError: one shows no lung, or has the name of another.
        """
        bar: tqdm[None]
        with progress((), self._prefix, "image", total=count * len(self._methods)) as bar:
            for case in cases:
                self._add(case, bar)

    def _add(self, case: TruthCase, bar: tqdm[None]) -> None:
        lung = case.thin[case.labelled("parenchyma")]
        lung = lung.clip(CLINICAL_WINDOW.low, CLINICAL_WINDOW.high)
        if not lung.size or lung.min() == lung.max():
            raise UserError(
                f"{case.name} shows no lung beside other structures, or one value in all of it, so "
                "nothing would be scored: leave it out"
            )
        if any(one.patient == case.name for one in self._scores):
            raise UserError(
                f"two cases are called {case.name}, and would be counted as one patient: give one "
                "of them another name"
            )
        enlarged, trust = {}, {}
        for method in self._methods:
            start = time.perf_counter()
            enlarged[method.name] = method.enlarge(case)
            self._seconds[method.name] += time.perf_counter() - start
            trust[method.name] = trust_measures(method, case, enlarged[method.name])
        scorer = Scorer(case, CLINICAL_WINDOW)

        def score(name: str) -> CaseScores:
            found = scorer.score(name, enlarged[name], trust[name])
            bar.update()
            return found

        # Most of the time goes by in libraries that let other threads run.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            self._scores += pool.map(score, enlarged)
        if len(self._pictures) < SHOWN:
            self._pictures.append(self._picture(case, enlarged))

    def _picture(self, case: TruthCase, enlarged: Mapping[str, np.ndarray]) -> PatientPicture:
        middle = len(case.truth) // 2
        shown = {INPUT: case.clinical[middle]}
        shown |= {name: volume[middle] for name, volume in enlarged.items()}
        shown[TRUTH] = case.truth[middle]
        results = Path(self._options.results_dir)
        model = next(iter(self._models))
        page = write_patient_page(self._options, results, case, enlarged, model, self._device)
        return PatientPicture(f"{case.name}, {case.group}", shown, page)

    def write(
        self,
        inputs: Iterable[str],
        facts: Mapping[str, object],
        matrix: ScannerMatrix | None = None,
    ) -> None:
        """Write the report, and print its tables.

        Args:
            inputs: what was scored, for the record.
            facts: about the cases, for the scores' file.
            matrix: of scanners, where it was measured.
        """
        results = Path(self._options.results_dir)
        report = Report(
            self._prefix,
            self._options.method,
            self._scores,
            self._methods,
            self._pictures,
            CLINICAL_WINDOW,
            facts,
            matrix,
        )
        table = report.write(results)
        outputs = output_names(self._prefix, matrix is not None)
        write_run_record(
            results / f"{self._prefix}_run.json",
            vars(self._options),
            self._device,
            method=self._options.method,
            input=list(inputs),
            outputs=[str(results / name) for name in outputs],
            models={name: model.facts() for name, model in self._models.items()},
            window=CLINICAL_WINDOW.as_dict(),
            seconds=self._seconds,
        )
        with may_fail("page", self._options.debug):
            report.draw(results)
        count = len({one.patient for one in self._scores})
        print(f"\n{count} patients; mean with Student's 95 % interval over patients\n{table}")
        print(f"wrote {results / PAGE} and {', '.join(outputs[:-1])}")


def prefix_of(options: Namespace) -> str:
    """What the names of the files begin with: phantom or pair."""
    return str(options.method).removesuffix("test")


def refuse_outputs(options: Namespace) -> None:
    """Refuse to write over results that are there; a page of another method is kept."""
    written = output_names(prefix_of(options), options.scanners)
    names = [name for name in written if name != PAGE]
    refuse_existing([Path(options.results_dir) / name for name in names], options.overwrite)
