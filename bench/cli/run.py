"""``bench run``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.opening import open_datasets
from bench.cli.options import (
    JOBS,
    MACHINES,
    Changes,
    CheckpointEvery,
    CpusPerJob,
    DataDir,
    Device,
    Fold,
    GpusPerJob,
    Models,
    RamGib,
    RayAddress,
    Results,
    Retries,
    Seeds,
    Timeout,
    Workers,
    parse_folds,
    parse_seeds,
    split_names,
)
from bench.store import DEFAULT_RESULTS


def run(
    model: Models,
    dataset: Annotated[
        list[str],
        typer.Option(
            "--dataset",
            metavar="NAME[,NAME…]",
            help="See `bench datasets`; or folders laid out as nnU-Net's or MSD's. May be repeated.",
        ),
    ],
    protocol: Annotated[
        list[str],
        typer.Option(
            "--protocol",
            metavar="NAME[,NAME…]",
            help="See `bench protocols`, or a file made by `bench tune`; by default demo for phantoms, else paper. "
            "May be repeated.",
        ),
    ] = [],  # noqa: B006
    seed: Seeds = "0",
    folds: Annotated[
        int, typer.Option("--folds", metavar="N", min=0, help="Cross-validate, as --set split.folds=N; 0 for none.")
    ] = 0,
    fold: Fold = "all",
    set_: Changes = [],  # noqa: B006 - typer's form of a repeatable option
    data_dir: DataDir = None,
    results: Results = DEFAULT_RESULTS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would run, and what it needs.")] = False,
    memory_gib: Annotated[
        float,
        typer.Option(
            "--memory-gib",
            metavar="N",
            min=0,
            help="Memory to train in, as --set train.memory_gib=N.",
            rich_help_panel=JOBS,
        ),
    ] = 0,
    optimised: Annotated[
        bool,
        typer.Option(
            "--optimised/--as-published",
            help="With channels last, fused kernels and CUDA graphs, as --set train.channels_last=true and so on; or "
            "with layers and layouts as their authors run them, which is the default.",
            rich_help_panel=JOBS,
        ),
    ] = False,
    timeout: Timeout = 0,
    checkpoint_every: CheckpointEvery = 600,
    workers: Workers = -1,
    predictions: Annotated[bool, typer.Option(help="Keep the test cases' label maps.", rich_help_panel=JOBS)] = True,
    device: Device = "",
    scheduler: Annotated[
        str,
        typer.Option(
            "--scheduler",
            metavar="NAME",
            help="ray, inline (one after another in this process), or auto: ray for several jobs on GPUs.",
            rich_help_panel=MACHINES,
        ),
    ] = "auto",
    ray_address: RayAddress = "",
    gpus_per_job: GpusPerJob = 1,
    cpus_per_job: CpusPerJob = 0,
    ram_gib: RamGib = 0,
    retries: Retries = 3,
) -> None:
    """Train networks on datasets and score them on their held-out cases.

    Several models, seeds, folds, protocols or datasets make a grid. What is complete already is not run again; what was
    interrupted goes on.
    """
    import torch

    from bench.cli.running import Carrying, carry_out, print_plan
    from bench.engine.device import check_batch
    from bench.engine.network import build_network
    from bench.engine.regions import check_regions
    from bench.fields import OPTIMISATIONS
    from bench.plan import (
        GridCell,
        check_option_targets,
        choose_datasets,
        choose_folds,
        choose_models,
        default_protocol,
        make_plan,
        protocols_of,
        resolved_options,
    )
    from bench.progress import ConsoleWatcher
    from bench.schedule.launch import Wishes
    from bench.store import Store, describe
    from bench.tuned import names_file, read_tuned

    seeds, asked_folds = parse_seeds(seed), parse_folds(fold)
    cards = choose_datasets(split_names(dataset))
    names = choose_models(split_names(model))
    changes = [*set_, *([f"train.memory_gib={memory_gib}"] if memory_gib else [])]
    changes += [f"split.folds={folds}"] if folds else []
    changes += [f"train.{field}=true" for field in OPTIMISATIONS if optimised]
    asked = [
        (name, protocols_of(names, preset, changes))
        for name, card in cards.items()
        for preset in split_names(protocol) or [default_protocol(card)]
    ]
    check_option_targets(set_, names)
    wishes = Wishes(gpus_per_job, cpus_per_job, ram_gib, retries)
    # What cannot be built is said now, not after the others have trained for days.
    for card, name, one in [(cards[place], name, one) for place, found in asked for name, one in found.items()]:
        choose_folds(one, asked_folds)
        check_batch(wishes.devices, one.train.batch_size)
        check_regions(one, card.regions, name)
        options, cpu = resolved_options(name, one), torch.device("cpu")
        build_network(name, options, card, one.data.patch_size, cpu, one.train.target)
    watcher = ConsoleWatcher()
    store = Store(results)
    opened = open_datasets(list(cards), data_dir, watcher)
    plan = make_plan([GridCell(opened[name], found) for name, found in asked], seeds, store, asked_folds)
    for file in filter(names_file, split_names(protocol)):
        read_tuned(Path(file)).check_cases(plan.jobs)
    carrying = Carrying(
        scheduler=scheduler,
        ray_address=ray_address,
        device=device,
        wishes=wishes,
        workers=workers,
        save_predictions=predictions,
        timeout_s=timeout * 3600 or None,
        checkpoint_interval_s=checkpoint_every,
    )
    if dry_run:
        print_plan(plan, plan.datasets, store, carrying)
        return
    records, stopped = carry_out(plan, plan.datasets, store, carrying, watcher)
    for record in records:
        message = record.content.get("message")
        typer.echo(describe(record) + (f": {message}" if message else ""))
    if stopped:
        raise typer.Exit(130)
    if len(records) < len(plan.jobs) or any(record.status != "complete" for record in records):
        raise typer.Exit(1)
