"""Carrying out what ``bench tune`` planned, and telling of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from bench.cli.running import Carrying
    from bench.progress import Watcher
    from bench.schedule.cluster import Machine, Needs
    from bench.schedule.launch import Wishes
    from bench.search.plan import Search
    from bench.search.result import Found
    from bench.search.trials import Ledger
    from bench.tuned import Tuned
    from data.dataset import Dataset

TUNE = "tune"


def search_folder(results: Path, name: str) -> Path:
    """Where a search of that name keeps its records.

    Raises:
        BenchError: the name is no word.
    """
    from bench.errors import BenchError

    if not re.fullmatch(r"\w[\w.-]*", name):
        raise BenchError(f"--name {name!r}: it names a folder in {results / TUNE}; expected letters, digits, - and _")
    return results / TUNE / name


def open_output(path: Path, search: Search) -> Tuned | None:
    """What an earlier command of the same search left in the file; None where there is none.

    Raises:
        BenchError: something else lies there.
    """
    from bench.errors import BenchError
    from bench.tuned import read_tuned

    if not path.exists():
        return None
    found = read_tuned(path)
    if found.name != search.name:
        raise BenchError(
            f"{path} holds what another search found ({found.name}: {found.description}), and this one ({search.name}) "
            "would replace it; expected a file of its own. Give --name or --output, or move that file away"
        )
    return found


def check_networks(search: Search, dataset: Dataset, wishes: Wishes) -> None:
    """What cannot be built is said now, not after the others have trained for days.

    Raises:
        BenchError, ModelError: naming it.
    """
    import torch

    from bench.engine.device import check_batch
    from bench.engine.network import build_network
    from bench.engine.regions import check_regions

    built = set()
    for trial in search.trials:
        job, target = trial.job, trial.job.protocol.train.target
        patch = job.protocol.data.patch_size
        check_batch(wishes.devices, job.protocol.train.batch_size)
        check_regions(job.protocol, dataset.card.regions, trial.model)
        same = trial.model, str(sorted(job.model_options.items())), patch, target
        if same not in built:
            built.add(same)
            build_network(trial.model, job.model_options, dataset.card, patch, torch.device("cpu"), target)


def print_search(search: Search, ledger: Ledger, carrying: Carrying, output: Path) -> None:
    """What would be tried, on what, what is there already."""
    from bench.cli.running import cluster_address, machine_here, needs_of
    from bench.schedule.cluster import connected
    from bench.search.space import setting_text

    jobs = [trial.job for trial in search.trials]
    if cluster_address(carrying):
        with connected(cluster_address(carrying)) as machines:
            needs, _ = needs_of(jobs, machines, ledger.store, carrying)
    else:
        machines = [machine_here()]
        needs, _ = needs_of(jobs, machines, ledger.store, carrying)
    for line in [*_described(search), *_placed(machines, needs)]:
        typer.echo(line)
    for model in search.wanted.models:
        typer.echo(f"{model}:")
        for trial in search.of(model):
            outcome = ledger.outcome(trial)
            own = " (the protocol's own)" if trial.number == 0 else ""
            step = f" after {outcome.step} steps" if outcome.step and outcome.status != "complete" else ""
            typer.echo(f"  {trial.number:3}  {outcome.status}{step}  {setting_text(trial.setting)}{own}")
    typer.echo(f"records: {ledger.store.root}\nresult: {output}")


def carry_out(search: Search, ledger: Ledger, dataset: Dataset, carrying: Carrying, watcher: Watcher) -> bool:
    """Run the trials that are not settled; returns whether somebody asked to stop."""
    import torch

    from bench.cli.running import cluster_address, make_order, needs_of
    from bench.engine.interrupt import stop_on_signal
    from bench.schedule.cluster import connected
    from bench.search.plan import REDUCTION

    for line in _described(search):
        watcher.say(line)
    left = [trial for trial in search.trials if not ledger.outcome(trial).settled]
    if not left:
        watcher.say("every trial is settled already; nothing is left to run")
        return False
    from bench.schedule.tune import run_search

    address = cluster_address(carrying)
    watcher.say(f"joining the cluster {address}" if address else "starting Ray on this machine")
    with connected(address, gpus=torch.cuda.device_count()) as machines, stop_on_signal() as stop:
        needs, device_type = needs_of([trial.job for trial in left], machines, ledger.store, carrying)
        for line in _placed(machines, needs):
            watcher.say(line)
        watcher.say(f"{len(left)} of {len(search.trials)} trials to run; bench status --results {ledger.store.root}")
        run_search(
            search.trials,
            ledger,
            lambda trial: make_order(trial.job, dataset, ledger.store, carrying, device_type, needs),
            needs,
            rungs=search.rungs,
            steps=search.steps,
            reduction=REDUCTION,
            retries=carrying.wishes.retries,
            stopped=lambda: stop.requested,
            say=watcher.say,
        )
        return stop.requested


def finish(search: Search, ledger: Ledger, output: Path, earlier: Tuned | None) -> bool:
    """Write what was found and print it; returns whether every trial has ended and every network has a setting."""
    from bench.atomic import write_text
    from bench.search.result import found_of, trials_file, trials_table, tuned_of
    from bench.tuned import write_tuned

    found = found_of(search, ledger)
    write_text(trials_file(output), trials_table(search, ledger, trials_file(output)))
    typer.echo(_table(found))
    if unended := sum(not outcome.ended for one in found for outcome in one.outcomes):
        typer.echo(f"{unended} trials have not come to an end, so that nothing is compared; the same command goes on")
        return False
    bare = [one.model for one in found if one.best is None]
    for model in bare:
        typer.echo(f"{model}: no trial came to its end, so that there is no setting; see {trials_file(output)}")
    tuned = tuned_of(search, found, ledger, output, earlier)
    if tuned.models:
        write_tuned(tuned)
        typer.echo(f"\nprotocol {tuned.name}: bench run --protocol {output}")
    typer.echo(f"all trials: {trials_file(output)}")
    return not bare


def _table(found: Sequence[Found]) -> str:
    from tabulate import tabulate

    from bench.search.space import setting_text
    from bench.search.trials import COMPLETE, FAILED, STOPPED

    headers = [
        "model",
        "complete",
        "stopped",
        "failed",
        "steps",
        "device s",
        "own Dice %",
        "best Dice %",
        "best setting",
    ]
    rows = []
    for one in found:
        setting = setting_text(one.best.setting) if one.best else "none"
        own = " (the protocol's own)" if one.best and one.best.number == 0 else ""
        counts = [one.count(COMPLETE), one.count(STOPPED), one.count(*FAILED)]
        figures = [f"{one.steps:,}", f"{one.device_s:,.0f}", _percent(one.own_dice), _percent(one.dice)]
        rows.append([one.model, *counts, *figures, setting + own])
    return tabulate(rows, headers, disable_numparse=True, colalign=("left", *["right"] * 7, "left"))


def _percent(dice: float | None) -> str:
    return "-" if dice is None else f"{100 * dice:.2f}"


def _described(search: Search) -> Iterator[str]:
    wanted, split = search.wanted, search.split
    models = len(wanted.models)
    yield (
        f"{models} network{'s' if models != 1 else ''}, {wanted.trials} settings each, at most {search.steps:,} steps "
        f"a setting: at most {models * wanted.trials * search.steps:,} steps in all"
    )
    yield f"searched: {', '.join(map(str, wanted.space))}; seed {wanted.seed}"
    yield (
        f"on {search.dataset}: {_cases(len(split.train), 'training')}, compared on "
        f"{_cases(len(split.validation), 'validation')}; the {_cases(len(split.test), 'test')} left alone"
    )
    rungs = ", ".join(map(str, search.rungs))
    stops = f"the worse half stops after {rungs} steps" if rungs else "none stops early"
    yield f"validated {len(search.points)} times; {stops}, the protocol's own setting never"


def _cases(count: int, part: str) -> str:
    return f"{count} {part} case{'s' if count != 1 else ''}"


def _placed(machines: Sequence[Machine], needs: Needs) -> Iterator[str]:
    from bench.schedule.cluster import room

    yield from (f"  {machine}" for machine in machines)
    yield f"each trial takes {needs}; {room(machines, needs)} at the same time"
