"""``bench run``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.opening import open_dataset
from bench.cli.options import Changes, DataDir, Device, Models, Results, Seeds, parse_seeds, split_names
from bench.store import DEFAULT_RESULTS

if TYPE_CHECKING:
    from bench.job import Job
    from bench.store import Record


def run(
    model: Models,
    dataset: Annotated[
        str,
        typer.Option(
            "--dataset", metavar="NAME", help="See `bench datasets`; or a folder laid out as nnU-Net's or MSD's."
        ),
    ],
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol", metavar="NAME", help="See `bench protocols`; by default demo for phantoms, else paper."
        ),
    ] = "",
    seed: Seeds = "0",
    set_: Changes = [],  # noqa: B006 - typer's form of a repeatable option
    data_dir: DataDir = None,
    results: Results = DEFAULT_RESULTS,
    device: Device = "",
    gpus_per_job: Annotated[
        int, typer.Option("--gpus-per-job", metavar="N", min=1, help="Devices that share each batch of a job.")
    ] = 1,
    memory_gib: Annotated[
        float,
        typer.Option("--memory-gib", metavar="N", min=0, help="Memory to train in, as --set train.memory_gib=N."),
    ] = 0,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="HOURS", min=0, help="End each job after that time; 0 for never.")
    ] = 0,
    checkpoint_every: Annotated[
        float, typer.Option("--checkpoint-every", metavar="SECONDS", min=0, help="Time between checkpoints.")
    ] = 600,
    workers: Annotated[int, typer.Option("--workers", min=-1, help="Threads that cut patches; -1 chooses.")] = -1,
    predictions: Annotated[bool, typer.Option(help="Keep the test cases' label maps.")] = True,
) -> None:
    """Train networks on a dataset and score them on its held-out cases.

    Several models or seeds make a grid. What is complete already is not run again; what was interrupted goes on.
    """
    import torch

    import data
    from bench.engine.device import check_devices, choose_device, choose_prepare_workers, choose_workers
    from bench.engine.interrupt import stop_on_signal
    from bench.engine.network import build_network
    from bench.engine.options import RunOptions
    from bench.engine.run import run_job
    from bench.engine.segment import labels_of_regions
    from bench.plan import check_option_targets, choose_models, make_plan, protocols_of, resolved_options
    from bench.progress import ConsoleWatcher
    from bench.schedule.inline import run_inline
    from bench.store import Store, describe

    seeds = parse_seeds(seed)
    card = data.card(dataset)
    names = choose_models(split_names(model))
    changes = [*set_, *([f"train.memory_gib={memory_gib}"] if memory_gib else [])]
    protocols = protocols_of(names, protocol or ("demo" if card.synthetic else "paper"), changes)
    check_option_targets(set_, names)
    chosen = choose_device(device)
    for name, one in protocols.items():  # what cannot be built is said now, not after the others have trained for days
        check_devices(chosen, gpus_per_job, one.train.batch_size)
        if one.infer.output == "regions":
            labels_of_regions(card.regions)
        build_network(name, resolved_options(name, one), card, one.data.patch_size, torch.device("cpu"))
    options = RunOptions(
        device=chosen,
        gpus=gpus_per_job,
        workers=choose_workers(workers, chosen),
        prepare_workers=choose_prepare_workers(),
        save_predictions=predictions,
        timeout_s=timeout * 3600 or None,
        checkpoint_interval_s=checkpoint_every,
    )
    watcher = ConsoleWatcher()
    store = Store(results)

    opened = open_dataset(dataset, data_dir, watcher)
    plan = make_plan(protocols, opened, seeds, store)
    for record in plan.done:
        watcher.say(f"already there: {describe(record)}")
    titles = ", ".join(dict.fromkeys(one.title for one in protocols.values()))
    watcher.say(f"{len(plan.jobs)} to run under protocol {titles}, on {chosen}")
    with stop_on_signal() as stop:

        def run_one(job: Job) -> Record:
            watcher.say(f"{job.key}  {job.model} on {job.dataset}, seed {job.seed}")
            return run_job(job, opened, store, options, watcher, stop)

        records = run_inline(plan.jobs, run_one)
    for record in records:
        message = record.content.get("message")
        typer.echo(describe(record) + (f": {message}" if message else ""))
    if any(record.status == "interrupted" for record in records):
        raise typer.Exit(130)
    if any(record.status != "complete" for record in records):
        raise typer.Exit(1)
