"""From the parsed options to everything that the training loop works with."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.datasets import DATASETS
from data.patches import PatchDataset, PatchSettings
from data.sampling import EpochSampler
from data.training_data import TrainingData, open_training_data
from data.windows import Domain
from models.base_model import make_scanner
from models.loss_names import LOGGED
from models.medical_cycle_gan import MODELS, MedicalCycleGANModel
from models.networks import count_parameters
from options.base_options import PHANTOM_FOLDER
from options.presets import PRESET_NOTES
from options.train_checks import PAIR_LOSSES, has_weight, teaches_best
from training.given_weights import check_teacher, load_teacher, unlike_windows
from training.held_back import (
    fingerprint,
    has_held_back,
    make_samples,
    open_held_back,
    seen_by_scanner,
)
from training.known_scans import known_scans
from training.monitor.training_monitor import TrainingMonitor
from training.patch_loader import PatchLoader
from training.saver import RunSaver
from training.scanner_setup import look_at_scans
from training.state import Position, start_or_resume
from training.validation import SCORES, Validator, describe, is_better
from util.devices import check_precision, choose_devices, set_up_cudnn, warn_of_emulated_bf16
from util.errors import UserError
from util.interrupt import StopRequest
from util.processes import Processes, join_processes, own_device
from util.seeds import seed_everything


@dataclass
class Run:
    """A training run, ready for its first step."""

    options: Namespace  # parsed
    folder: Path  # of the experiment
    processes: Processes  # that train together
    model: MedicalCycleGANModel  # networks, losses and the step
    dataset: PatchDataset  # patches
    loader: PatchLoader  # batches of them
    position: Position  # where the run stands; the loop moves it on
    last_epoch: int  # niter + niter_decay
    # scores held-back slices, in the first process; None elsewhere and without any
    validator: Validator | None
    monitor: TrainingMonitor  # shows losses and pictures
    saver: RunSaver  # writes checkpoints and run.json

    @property
    def validates(self) -> bool:
        """Whether anything is held back; the same in all processes."""
        return has_held_back(self.options)

    def steps_left(self) -> int:
        """Steps of the running epoch that are still to be done."""
        items = (len(self.dataset) - self.position.offset) // self.processes.count
        return -(-items // self.options.batch_size)

    def save(self, *names: str) -> None:
        """Write checkpoints once the losses so far are known to be finite and written."""
        self.monitor.flush()
        self.saver.save(*names)

    def validate(self, stop: StopRequest) -> bool | None:
        """Score the held-back slices; returns whether they never were better, None for a stop."""
        position, metric = self.position, self.options.val_metric
        mine = None
        if self.validator is not None:
            with suppress(KeyboardInterrupt):
                mine = self.validator.score(self.model, stop.checked)
        scores: Mapping[str, float] | None = self.processes.from_first(mine)
        if scores is None:
            return None
        self.monitor.validated(position.epoch, position.step, scores)
        if self.validator is not None:
            opponent = describe(self.validator.cubic)
            print(f"epoch {position.epoch}: {describe(scores)} (cubic spline: {opponent})")
        if not is_better(metric, scores[metric], position.best):
            return False
        position.best, position.best_epoch = scores[metric], position.epoch
        return True

    def verdict(self) -> str | None:
        """What to say in the end, where cubic spline interpolation is better than the model."""
        if self.validator is None or not (verdict := self.validator.verdict(self.options.preset)):
            return None
        metric, best = self.options.val_metric, self.position.best
        if best is not None and is_better(metric, best, self.validator.cubic[metric]):
            verdict += f"; in {metric} best.pt is above it (epoch {self.position.best_epoch})"
        return verdict


def open_run(options: Namespace) -> Run:
    """Open devices, data and model, and find the place to start or to go on from.

    Raises:
        UserError: whatever of it cannot be used.
    """
    folder = Path(options.checkpoints_dir) / options.name
    device = own_device(choose_devices(options.gpu_ids))
    check_precision(options.precision, device)
    processes = join_processes(device)
    if options.precision == "bf16" and processes.is_first:
        warn_of_emulated_bf16(device)
    processes.say(preset_line(options, device.type))
    set_up_cudnn(options.precision, options.deterministic)
    # Equal weights in all processes, and then chances of their own.
    seed_everything(options.seed)
    model = MODELS[options.model](options, device, processes)
    if not processes.is_first:
        seed_everything(options.seed + processes.rank)
    teacher = load_teacher(options.teacher, model.scale) if options.teacher else None
    if teacher is not None:
        model.learn_from(teacher.generator)
    start = start_or_resume(folder, options, model, processes.say)
    position = start.position
    last_epoch = options.niter + options.niter_decay
    if position.epoch > last_epoch:
        raise UserError(
            f"{folder} is trained to its last epoch {last_epoch} (niter + niter_decay): give a "
            "larger --niter to go on"
        )
    data = open_data(options, start.windows, processes)
    is_new = start.windows is None
    found = start.scanner
    if found is None and processes.is_first:
        found = look_at_scans(options, data, is_new, processes.say)
    for name, value in processes.from_first(found).items():
        setattr(options, name, value)
    model.scanner = make_scanner(options)
    if unlike := unlike_windows(start.weights_windows, data.windows.as_dict()):
        processes.say(
            f"warning: the weights of --init_weights {unlike}: the first hundreds of steps go into "
            "that; give the --windows and --normalization of the weights"
        )
    if teacher is not None:
        check_teacher(teacher, data.windows, processes.say)
    seen_by_teacher = frozenset() if teacher is None else teacher.training_digests
    digests = sorted(start.digests | seen_by_teacher | set(data.digests))
    dataset = DATASETS[options.dataset_mode](data, patch_settings(options))
    begin_epoch(folder, len(dataset), position, processes)
    sampler = EpochSampler(
        len(dataset),
        options.seed,
        shuffle=not options.serial_batches,
        rank=processes.rank,
        processes=processes.count,
    )
    sampler.set_position(position.epoch - 1, position.offset)
    loader = PatchLoader(
        dataset,
        sampler,
        options.batch_size,
        options.num_threads,
        pinned=device.type == "cuda",
    )
    steps = -(-(len(dataset) // processes.count) // options.batch_size)
    shared = f"; {processes.count} processes" if processes.count > 1 else ""
    if processes.is_first:
        print(data.describe(dataset.patch_counts()))
    processes.say(
        ", ".join(f"{name} {count_parameters(net):,}" for name, net in model.networks.items())
        + f" parameters; {len(dataset)} patches and {steps} steps an "
        f"epoch, {last_epoch} epochs{shared}"
    )
    validator, scored = None, None
    if processes.is_first and has_held_back(options):  # the others only wait for what it finds
        held_back = open_held_back(options, data, digests)
        samples = make_samples(held_back, data, options)
        scored = fingerprint(held_back, data, options)
        if has_weight(options, PAIR_LOSSES):
            samples = seen_by_scanner(samples, model.scanner)
        validator = Validator(samples, model.scale)
        count = len(validator.samples)
        processes.say(
            f"{count} squares of held-back slices are scored every {options.val_freq} epochs"
        )
    scored = processes.from_first(scored)
    scans = known_scans(options, data) if processes.is_first else {}
    if start.scans and not teaches_best(options):
        scans = dict(start.scans)  # of the best estimate, which stays as it is
    saver = RunSaver(folder, options, model, position, data, digests, scans)
    monitor = TrainingMonitor(
        folder, LOGGED, options, position.step, position.epoch - 1, SCORES, processes.is_first
    )
    begin_scores(position, options, scored, processes.say)
    return Run(
        options,
        folder,
        processes,
        model,
        dataset,
        loader,
        position,
        last_epoch,
        validator,
        monitor,
        saver,
    )


def preset_line(options: Namespace, device: str) -> str:
    """Which preset is used, on what, and how to get the one that is asked for next."""
    other = {"demo": "adapt", "adapt": "paper"}.get(options.preset, "demo")
    start = "a checkpoint" if options.continue_train else options.init_weights or "random weights"
    purpose = PRESET_NOTES[other]
    return (
        f"preset {options.preset} on {device}, from {start} (another: --preset {other}, {purpose})"
    )


def begin_scores(
    position: Position, options: Namespace, scored: str | None, say: Callable[[str], None]
) -> None:
    """Forget the best score where the next ones are others: best.pt and --patience begin anew.

    Args:
        position: of the run.
        options: for their metric.
        scored: fingerprint of the held-back data; None without any.
        say: takes a line where that is so.
    """
    metric = options.val_metric
    is_other = position.best_of is not None and scored not in (None, position.best_of)
    if position.best is not None and (is_other or position.best_metric != metric):
        what = "the held-back data are others" if is_other else f"--val_metric is {metric}"
        say(f"{what} than before: best.pt and --patience begin anew")
        position.score_anew()
    position.best_metric = metric
    position.best_of = scored or position.best_of


def begin_epoch(folder: Path, length: int, position: Position, processes: Processes) -> None:
    """Refuse an epoch that is shorter than what was done of it, or than there are processes.

    Raises:
        UserError: says which.
    """
    if position.offset > length:
        raise UserError(
            f"{folder} goes on after {position.offset} patches of its epoch, but an epoch now has "
            f"{length}: leave out what shortened it (--batch_num, --max_dataset_size)"
        )
    if position.offset and position.epoch_items not in (None, length):
        processes.say(
            f"an epoch has {length} patches, not {position.epoch_items} as before: epoch "
            f"{position.epoch} goes on with the last {length - position.offset} of them"
        )
    position.epoch_items = length
    if length < processes.count:
        raise UserError(
            f"an epoch of {length} patches cannot be shared among {processes.count} "
            "processes: give a larger --batch_num, or start fewer processes"
        )


def open_data(
    options: Namespace, stored_windows: Mapping[str, Any] | None, processes: Processes
) -> TrainingData:
    """Open the volumes that the options name, or the phantom.

    The first process opens them before the others do, so that one alone unpacks volumes, computes
    lung masks and generates the phantom; the others find its files.
    """
    scale, words = 2**options.sampling_times, data_words(options)

    def opened() -> TrainingData:
        return open_training_data(
            dataset_mode=options.dataset_mode,
            clinical_words=words["clinical"],
            micro_words=words["micro"],
            phantom_folder=Path(PHANTOM_FOLDER) / f"x{scale}",
            scale=scale,
            cache_dir=Path(options.cache_dir) if options.cache_dir else None,
            mask_folder=Path(options.maskdatafolder) if options.maskdatafolder else None,
            spacing=options.micro_spacing,
            slices=options.slices,
            normalization=options.normalization,
            window_words=options.windows,
            stored_windows=stored_windows,
            micro_axes=options.micro_axes,
            say=processes.say,
        )

    if not processes.is_first:
        processes.wait()
        return opened()
    data = opened()
    processes.wait()
    return data


def data_words(options: Namespace) -> dict[Domain, list[str]]:
    """Words of the command line that name volumes, by domain."""
    return {
        "clinical": [
            *filter(None, [options.clinical_folder]), *(options.all_clinical_paths or []),
        ],
        "micro": [*filter(None, [options.micro_folder]), *(options.all_micro_paths or [])],
    }  # fmt: skip


def patch_settings(options: Namespace) -> PatchSettings:
    """The options that say how patches are drawn."""
    random_scanner = options.scanner != "fixed"
    return PatchSettings(
        clinical_patch_size=options.clinical_patch_size,
        micro_patch_size=options.micro_patch_size,
        scale=2**options.sampling_times,
        patches_per_volume=options.batch_num,
        seed=options.seed,
        micro_mix=options.micro_mix,
        clinical_as_micro=options.clinical_as_micro,
        degradation=options.degradation,
        flip=not options.no_flip,
        serial=options.serial_batches,
        fresh=not options.fixed_patches,
        max_size=options.max_dataset_size,
        sampling=options.sampling,
        match_spacing=options.match_spacing,
        zoom=options.scanner_pixel if random_scanner else (1.0, 1.0),
        thickness=options.scanner_thickness if random_scanner else (0.0, 0.0),
        # Only then are there shrunk patches for the scanner to see.
        mark_shrunk=random_scanner
        and (options.micro_mix > 0 or options.dataset_mode == "public_2D"),
    )
