"""How fast training patches come: ``python -m bench.profiling.pipeline --dataset phantom --protocol release``.

First the pipeline alone, from memory map to augmented batch on the device; then, for each model named, what share of
its training steps goes into waiting for data.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

import data
from bench.engine.device import choose_device, choose_prepare_workers, choose_workers
from bench.engine.execution import Execution
from bench.engine.feed import Feed
from bench.engine.network import build_network
from bench.engine.regions import channel_labels
from bench.engine.step import Step
from bench.engine.task import make_sampler
from bench.plan import draw_splits, resolved_options
from bench.progress import ConsoleWatcher, Watcher
from bench.protocol import Protocol, load_protocol
from bench.provenance import hardware
from data.dataset import Dataset
from data.fingerprint import fingerprint
from data.prepare import cache_folder, plan_preparation, prepare
from data.sampling import PatchSampler


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and, if asked, write a CSV file."""
    parser = argparse.ArgumentParser(prog="python -m bench.profiling.pipeline", description=__doc__)
    parser.add_argument("--dataset", default="phantom")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--protocol", default="release")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--model", action="append", default=[], help="also train this network; may be repeated")
    parser.add_argument("--batches", type=int, default=100, help="batches of the pipeline alone")
    parser.add_argument("--steps", type=int, default=20, help="steps of each network")
    parser.add_argument("--warm-up", type=int, default=5, help="batches and steps before, which are not timed")
    parser.add_argument("--workers", type=int, default=-1)
    parser.add_argument("--device", default="")
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args(arguments)

    torch.backends.cudnn.benchmark = True
    device = choose_device(asked.device)
    workers = choose_workers(asked.workers, device)
    protocol = load_protocol(asked.protocol, asked.set)
    watcher = ConsoleWatcher()
    dataset = data.open_dataset(asked.dataset, asked.data_dir)
    sampler = _sampler(dataset, protocol, watcher)
    rows = [_alone(sampler, device, workers, asked.batches, asked.warm_up, watcher)]
    for name in asked.model:
        rows += [
            _with(name, dataset, protocol, sampler, device, workers, asked.steps, asked.warm_up, fed, watcher)
            for fed in (True, False)
        ]
    about = {
        "protocol": protocol.title,
        "batch_size": protocol.train.batch_size,
        "patch": "x".join(map(str, protocol.data.patch_size)),
        "precision": protocol.train.precision,
        "workers": workers,
        "device": hardware(device).get("gpu", "cpu"),
        "cores": hardware(device)["cores"],
        "torch": torch.__version__,
    }
    _write(rows, about, asked.output)


def _sampler(dataset: Dataset, protocol: Protocol, watcher: Watcher) -> PatchSampler:
    cases = dataset.cases()
    by_id = {case.id: case for case in cases}
    first, *_ = draw_splits(cases, protocol).values()  # folds train alike
    training = [by_id[case] for case in first.train]
    fields = protocol.data
    workers = choose_prepare_workers()
    preparation = plan_preparation(
        dataset,
        training,
        normalise=fields.normalise,
        storage=fields.storage,
        spacing_mm=fields.spacing_mm,
        workers=workers,
    )
    with watcher.bar("preparing", len(training)) as bar:
        folder = cache_folder(dataset.card.name, fingerprint(cases), preparation)
        prepared = prepare(dataset, training, folder, preparation, on_case=bar.advance, workers=workers)
    return make_sampler(protocol, [prepared[case.id] for case in training], dataset.card, seed=0)


def _alone(
    sampler: PatchSampler, device: torch.device, workers: int, batches: int, warm_up: int, watcher: Watcher
) -> dict[str, object]:
    with (
        Feed(sampler, 0, indices=range(sampler.batch_size), device=device, workers=workers) as feed,
        watcher.bar("pipeline alone", batches + warm_up) as bar,
    ):
        for done in range(batches + warm_up):
            if done == warm_up:
                _synchronise(device)
                begun = time.perf_counter()
            next(feed)
            bar.advance()
        _synchronise(device)
        seconds = time.perf_counter() - begun
    return {"what": "pipeline alone", "patches_per_s": batches * sampler.batch_size / seconds}


def _with(
    name: str,
    dataset: Dataset,
    protocol: Protocol,
    sampler: PatchSampler,
    device: torch.device,
    workers: int,
    steps: int,
    warm_up: int,
    fed: bool,
    watcher: Watcher,
) -> dict[str, object]:
    """Steps of a network fed by the pipeline, or always with the same batch: the difference is what feeding costs."""
    torch.manual_seed(0)
    options, target = resolved_options(name, protocol), protocol.train.target
    model = build_network(name, options, dataset.card, protocol.data.patch_size, device, target).train()
    regions = channel_labels(target, dataset.card.regions)
    step = Step(model, protocol.train, Execution(sampler.batch_size), device, regions=regions)
    waits, took = [], []
    title = f"{name}, {'fed' if fed else 'one batch'}"
    with (
        Feed(sampler, 0, indices=range(sampler.batch_size), device=device, workers=workers) as feed,
        watcher.bar(title, steps + warm_up) as bar,
    ):
        batch = next(feed)
        if not fed:
            feed.close()
        for done in range(steps + warm_up):
            asked = time.perf_counter()
            batch = next(feed) if fed else batch
            begun = time.perf_counter()
            step(batch, protocol.train.learning_rate)
            ended = time.perf_counter()
            if done >= warm_up:
                waits.append(begun - asked)
                took.append(ended - begun)
            bar.advance(f"{ended - begun:.3f} s a step")
    return {
        "what": title,
        "patches_per_s": steps * sampler.batch_size / (sum(took) + sum(waits)),
        "step_ms": 1000 * statistics.median(took),
        "wait_share": sum(waits) / (sum(took) + sum(waits)),
    }


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _write(rows: list[dict[str, object]], about: dict[str, object], output: Path | None) -> None:
    from tabulate import tabulate

    columns = ("what", "patches_per_s", "step_ms", "wait_share")
    whole = [{**{column: row.get(column, "") for column in columns}, **about} for row in rows]
    sys.stdout.write(tabulate([[row.get(column, "") for column in columns] for row in rows], columns) + "\n")
    sys.stdout.write(", ".join(f"{name} {value}" for name, value in about.items()) + "\n")
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("w", newline="") as file:
            writer = csv.DictWriter(file, whole[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(whole)


if __name__ == "__main__":
    main()
