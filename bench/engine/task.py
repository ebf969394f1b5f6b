"""A job's training as one thing that can be sent to another process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from bench.engine.checkpoint import TrainingState, seed_everything
from bench.engine.evaluate import evaluate, mean_dice, means
from bench.engine.execution import Execution
from bench.engine.group import ALONE, Group
from bench.engine.interrupt import StopRequest
from bench.engine.network import build_network
from bench.engine.regions import channel_labels
from bench.engine.train import Surroundings, train
from bench.job import Job
from bench.progress import Watcher
from bench.protocol import Protocol
from bench.store import BEST, EVENTS, WEIGHTS, OpenRecord
from data.augment import Augmentation
from data.card import DatasetCard
from data.prepare import StoredCase
from data.sampling import PatchSampler
from data.volume import CaseFiles


@dataclass(frozen=True)
class TrainingTask:
    """What a training needs besides a device.

    Attributes:
        job: says network, protocol and seed.
        card: of the dataset.
        prepared: the cases that train and validate, by id.
        validation: the files of those that validate; none for no validation.
        folder: of the record.
        workers: threads that cut patches, in each process.
        most: largest micro-batch, or None.
        checkpoint_interval_s: seconds between two checkpoints.
    """

    job: Job
    card: DatasetCard
    prepared: Mapping[str, StoredCase]
    validation: tuple[CaseFiles, ...]
    folder: Path
    workers: int
    most: int | None
    checkpoint_interval_s: float

    def network(self, device: torch.device) -> nn.Module:
        """The network before training, the same on every device and in every process."""
        seed_everything(self.job.seed)
        protocol = self.job.protocol
        patch_size, target = protocol.data.patch_size, protocol.train.target
        return build_network(self.job.model, self.job.model_options, self.card, patch_size, device, target)

    def run(
        self,
        model: nn.Module,
        device: torch.device,
        watcher: Watcher,
        stop: StopRequest,
        on_execution: Callable[[Execution], None],
        group: Group = ALONE,
    ) -> TrainingState:
        """Train ``model``, as `bench.engine.train.train` does, from the record's checkpoint on if it has one."""
        protocol = self.job.protocol
        if group.rank:  # dropout of its own; the first keeps the stream that a process alone would have
            torch.manual_seed(self.job.seed + group.rank * 2**20)
        around = Surroundings(
            last=self.folder / WEIGHTS,
            best=self.folder / BEST,
            events=self.folder / EVENTS if group.first else None,
            write_history=OpenRecord(self.folder, {}).write_history,
            on_execution=on_execution,
            device=device,
            workers=self.workers,
            watcher=watcher,
            stop=stop,
            group=group,
            most=self.most,
            checkpoint_interval_s=self.checkpoint_interval_s,
        )
        mine = [self.validation[index] for index in group.share(len(self.validation))]
        plain = protocol.infer.model_copy(update={"mirror_axes": ()})

        def validate(watcher: Watcher) -> dict[str, float]:
            """Without flips, which cost eight times as much and seldom change which weights are best."""
            measured = evaluate(
                model,
                self.card.regions,
                mine,
                dict(self.prepared),
                protocol,
                infer=plain,
                device=device,
                watcher=watcher,
                stop=StopRequest(),  # where a stop would lose what was validated so far
                title="validating",
            )
            together = {case: found for part in group.gather(measured) for case, found in part.items()}
            by_region = {f"dice_{region}": scores["dice"] for region, scores in means(together).items()}
            return {"dice": mean_dice(together), **by_region}

        return train(
            model,
            make_sampler(protocol, [self.prepared[case] for case in self.job.split.train], self.card, self.job.seed),
            protocol.train,
            around,
            regions=channel_labels(protocol.train.target, self.card.regions),
            validate=validate if self.validation else None,
            validate_every=protocol.validation.every_epochs or 1,
        )


def make_sampler(protocol: Protocol, cases: Sequence[StoredCase], card: DatasetCard, seed: int) -> PatchSampler:
    """The stream of training patches under a protocol."""
    return PatchSampler(
        cases,
        patch_size=protocol.data.patch_size,
        batch_size=protocol.train.batch_size,
        foreground_fraction=protocol.data.foreground_fraction,
        placement=protocol.data.placement,
        augmentation=Augmentation(**protocol.augment.model_dump()),
        classes=card.classes,
        seed=seed,
    )
