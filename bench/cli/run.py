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
    dataset: Annotated[str, typer.Option("--dataset", metavar="NAME", help="See `bench datasets`.")],
    protocol: Annotated[
        str,
        typer.Option("--protocol", metavar="NAME", help="By default: demo for phantoms, paper for patients."),
    ] = "",
    seed: Seeds = "0",
    set_: Changes = [],  # noqa: B006 - typer's form of a repeatable option
    data_dir: DataDir = None,
    results: Results = DEFAULT_RESULTS,
    device: Device = "",
    workers: Annotated[int, typer.Option("--workers", min=-1, help="Processes that cut patches; -1 chooses.")] = -1,
    predictions: Annotated[bool, typer.Option(help="Keep the test cases' label maps.")] = True,
) -> None:
    """Train networks on a dataset and score them on its held-out cases.

    Several models or seeds make a grid. What is complete already is not run again; what was interrupted goes on.
    """
    import torch

    import data
    from bench.engine.device import choose_device, choose_workers
    from bench.engine.interrupt import stop_on_signal
    from bench.engine.network import build_network
    from bench.engine.run import RunOptions, run_job
    from bench.plan import check_option_targets, choose_models, make_plan
    from bench.progress import ConsoleWatcher
    from bench.protocol import load_protocol
    from bench.schedule.inline import run_inline
    from bench.store import Store, describe

    seeds = parse_seeds(seed)
    card = data.card(dataset)
    shared = load_protocol(protocol or ("demo" if card.synthetic else "paper"), set_)
    names = choose_models(split_names(model), shared)
    check_option_targets(set_, names)
    chosen = choose_device(device)
    for name in names:  # what cannot be built is said now, not after the others have trained for days
        build_network(name, shared.model_options.get(name, {}), card, shared.data.patch_size, torch.device("cpu"))
    options = RunOptions(chosen, choose_workers(workers, chosen), predictions)
    watcher = ConsoleWatcher()
    store = Store(results)

    opened = open_dataset(dataset, data_dir, watcher)
    plan = make_plan(names, opened, shared, seeds, store)
    for record in plan.done:
        watcher.say(f"already there: {describe(record)}")
    watcher.say(f"{len(plan.jobs)} to run under protocol {shared.title}, on {chosen}")
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
