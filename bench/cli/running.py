"""Carrying out what ``bench run`` planned: in this process, or by Ray."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from bench.engine.options import RunOptions
    from bench.engine.order import Order
    from bench.job import Job
    from bench.plan import Plan
    from bench.progress import Watcher
    from bench.schedule.cluster import Machine, Needs
    from bench.schedule.estimate import Estimate
    from bench.schedule.launch import Wishes
    from bench.store import Record, Store
    from data.dataset import Dataset


@dataclass(frozen=True)
class Carrying:
    """How jobs are carried out, as the command line says it.

    Attributes:
        scheduler: ``auto``, ``inline`` or ``ray``.
        ray_address: of a cluster; empty for none.
        device: as typed; empty lets the machines decide.
        wishes: what each job is to have.
        workers: threads that cut patches; -1 chooses.
        save_predictions, timeout_s, checkpoint_interval_s: as in `bench.engine.options.RunOptions`.
    """

    scheduler: str
    ray_address: str
    device: str
    wishes: Wishes
    workers: int
    save_predictions: bool
    timeout_s: float | None
    checkpoint_interval_s: float

    def choice(self, jobs: int) -> str:
        """``inline`` or ``ray``, for that many jobs."""
        import torch

        from bench.schedule.launch import choose_scheduler

        here, _, number = self.device.partition(":")
        if number and self.scheduler == "auto" and not self.ray_address:  # Ray would hand out another one
            return "inline"
        here = here or ("cuda" if torch.cuda.is_available() else "cpu")
        return choose_scheduler(self.scheduler, self.ray_address, here, jobs)


def carry_out(
    plan: Plan, datasets: Mapping[str, Dataset], store: Store, carrying: Carrying, watcher: Watcher
) -> tuple[list[Record], bool]:
    """Run the jobs of a plan.

    Returns:
        The records of those that ended, and whether somebody asked to stop.
    """
    from bench.store import UNFINISHED, describe
    from bench.sweep import forget_done

    for record in plan.done:
        watcher.say(f"already there: {describe(record)}")
    records: list[Record] = []
    stopped = False
    if not plan.jobs:
        watcher.say("nothing is left to run")
    elif carrying.choice(len(plan.jobs)) == "ray":
        records, stopped = _by_ray(plan.jobs, datasets, store, carrying, watcher)
    else:
        records, stopped = _here(plan.jobs, datasets, store, carrying, watcher)
    forget_done(store.root, [record.key for record in store.records() if record.status not in UNFINISHED])
    return records, stopped


def print_plan(plan: Plan, datasets: Mapping[str, Dataset], store: Store, carrying: Carrying) -> None:
    """What would run, in which order, what is skipped and why, what it needs, what there is."""
    from bench.schedule.cluster import connected, room
    from bench.schedule.estimate import expected, longest_first
    from bench.store import describe

    scheduler = carrying.choice(len(plan.jobs))
    typer.echo(f"scheduler: {scheduler}")
    if scheduler == "ray":
        if cluster_address(carrying):
            with connected(cluster_address(carrying)) as machines:
                needs, _ = needs_of(plan.jobs, machines, store, carrying)
        else:
            machines = [machine_here()]
            needs, _ = needs_of(plan.jobs, machines, store, carrying)
        typer.echo("machines:" + "".join(f"\n  {machine}" for machine in machines))
        typer.echo(f"each job takes {needs}; {room(machines, needs)} run at the same time")
        ordered = longest_first(plan.jobs, store.records())
    else:
        _options(carrying)
        records = store.records()
        ordered = [(job, expected(job, records)) for job in plan.jobs]
    typer.echo(f"{len(plan.done) + len(plan.jobs)} jobs: {len(plan.jobs)} to run, {len(plan.done)} complete")
    for record in plan.done:
        typer.echo(f"  skipped  {describe(record)}")
    for job, estimate in ordered:
        told = "" if estimate is None else f", about {timedelta(seconds=round(estimate.seconds))}"
        typer.echo(f"  run      {job.key}  {job.title}, protocol {job.protocol.title}{told}{_before(job, store)}")
    if known := [estimate for _, estimate in ordered if estimate is not None]:
        typer.echo(_altogether(known, len(ordered)))
    for name, dataset in datasets.items():
        typer.echo(f"dataset {name}: {dataset.root}")


def _here(
    jobs: Sequence[Job], datasets: Mapping[str, Dataset], store: Store, carrying: Carrying, watcher: Watcher
) -> tuple[list[Record], bool]:
    from bench.engine.interrupt import stop_on_signal
    from bench.engine.run import run_job
    from bench.lease import Watch
    from bench.schedule.inline import run_inline
    from bench.schedule.settled import Settled
    from bench.sweep import OpenSweep

    options = _options(carrying)
    watcher.say(f"{len(jobs)} to run under protocol {_titles(jobs)}, on {options.device}")
    watch, settled = Watch(), Settled(store, jobs)

    def run(job: Job) -> Record:
        before = settled.before[job.key]
        return run_job(job, datasets[job.dataset], store, options, watcher, stop, watch, before)

    with stop_on_signal() as stop, OpenSweep(store.root, jobs) as sweep:
        records = run_inline(
            jobs,
            run,
            settled=settled,
            stopped=lambda: stop.requested,
            say=watcher.say,
        )
        # The processes of a job on several devices take the signal for themselves.
        stopped = stop.requested or any(record.status == "interrupted" for record in records)
        if not stopped:
            sweep.finished()
    return records, stopped


def _by_ray(
    jobs: Sequence[Job], datasets: Mapping[str, Dataset], store: Store, carrying: Carrying, watcher: Watcher
) -> tuple[list[Record], bool]:
    import torch

    from bench.engine.interrupt import stop_on_signal
    from bench.schedule.cluster import connected, room
    from bench.schedule.launch import run_sweep, view_of
    from bench.schedule.settled import Settled

    address = cluster_address(carrying)
    watcher.say(f"joining the cluster {address}" if address else "starting Ray on this machine")
    # Ray puts handlers of its own in place, so ours come after.
    with connected(address, gpus=torch.cuda.device_count()) as machines, stop_on_signal() as stop:
        needs, device_type = needs_of(jobs, machines, store, carrying)
        for machine in machines:
            watcher.say(f"  {machine}")
        watcher.say(
            f"{len(jobs)} to run under protocol {_titles(jobs)}; each takes {needs}; {room(machines, needs)} at the "
            "same time"
        )

        settled = Settled(store, jobs)

        def order_of(job: Job) -> Order:
            made = make_order(job, datasets[job.dataset], store, carrying, device_type, needs)
            return replace(made, since=settled.before[job.key])

        records = run_sweep(
            jobs,
            store,
            order_of,
            settled,
            needs,
            retries=carrying.wishes.retries,
            view=view_of(store, jobs),
            stopped=lambda: stop.requested,
        )
    return records, stop.requested


def _options(carrying: Carrying) -> RunOptions:
    from bench.engine.device import check_devices, choose_device, choose_prepare_workers, choose_workers
    from bench.engine.options import RunOptions
    from bench.errors import BenchError

    if carrying.wishes.gpus < 1:
        raise BenchError(
            f"--gpus-per-job {carrying.wishes.gpus:g}: it is with --scheduler ray that jobs share a GPU, since inline "
            "they run one after another"
        )
    device = choose_device(carrying.device)
    check_devices(device, carrying.wishes.devices)
    return RunOptions(
        device=device,
        gpus=carrying.wishes.devices,
        workers=choose_workers(carrying.workers, device),
        prepare_workers=choose_prepare_workers(),
        save_predictions=carrying.save_predictions,
        timeout_s=carrying.timeout_s,
        checkpoint_interval_s=carrying.checkpoint_interval_s,
    )


def make_order(job: Job, dataset: Dataset, store: Store, carrying: Carrying, device_type: str, needs: Needs) -> Order:
    """The order of a job for a process of its own."""
    from bench.engine.order import Order
    from bench.schedule.launch import passed_on

    threads = max(1, min(12, needs.cpus // carrying.wishes.devices - 1)) if device_type == "cuda" else 0
    return Order(
        kind="run",
        job=job,
        card=dataset.card,
        root=dataset.root.resolve(),
        results=store.root.resolve(),
        device=device_type,
        gpus=carrying.wishes.devices,
        gpu_share=min(1.0, carrying.wishes.gpus),
        workers=carrying.workers if carrying.workers >= 0 else threads,
        prepare_workers=min(8, needs.cpus),
        save_predictions=carrying.save_predictions,
        timeout_s=carrying.timeout_s,
        checkpoint_interval_s=carrying.checkpoint_interval_s,
        environment=passed_on(),
        command=sys.argv,
    )


def needs_of(jobs: Sequence[Job], machines: Sequence[Machine], store: Store, carrying: Carrying) -> tuple[Needs, str]:
    """What each job takes of a machine, and ``cpu`` or ``cuda``."""
    from bench.schedule.launch import choose_device_type, choose_needs

    device_type = choose_device_type(carrying.device, machines)
    return choose_needs(carrying.wishes, device_type, machines, jobs, store.records()), device_type


def machine_here() -> Machine:
    """This machine, as a Ray that is started here would have it."""
    import torch

    from bench.schedule.cluster import this_machine

    return this_machine(torch.cuda.device_count())


def cluster_address(carrying: Carrying) -> str:
    """Of the cluster that is to be joined; empty for none."""
    return carrying.ray_address or os.environ.get("RAY_ADDRESS", "")


def _altogether(known: Sequence[Estimate], jobs: int) -> str:
    total = timedelta(seconds=round(sum(estimate.seconds for estimate in known)))
    which = f"{len(known)} of the {jobs}" if len(known) < jobs else f"the {jobs}"
    hardware = " and ".join(sorted({estimate.hardware for estimate in known} - {""}))
    return f"one after the other {which} take about {total}" + (f", by records of {hardware}" if hardware else "")


def _titles(jobs: Sequence[Job]) -> str:
    return ", ".join(dict.fromkeys(job.protocol.title for job in jobs))


def _before(job: Job, store: Store) -> str:
    """What an earlier attempt at the job left."""
    record = store.get(job.key)
    if record is None:
        return ""
    if record.status == "running":
        return "; somebody runs it now, which is waited for"
    step = (record.last_epoch() or {}).get("step")
    if record.status in ("interrupted", "timeout"):
        return f"; {record.status}, goes on from its checkpoint" + (f" (after step {step:g})" if step else "")
    return f"; {record.status} before, is tried again"
