"""``bench tune``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.opening import open_datasets
from bench.cli.options import (
    Changes,
    CheckpointEvery,
    CpusPerJob,
    DataDir,
    Device,
    GpusPerJob,
    Models,
    RamGib,
    RayAddress,
    Results,
    Retries,
    Timeout,
    Workers,
    parse_seeds,
    split_names,
)
from bench.store import DEFAULT_RESULTS

_SEARCH = "What is searched"


def tune(
    model: Models,
    dataset: Annotated[
        str, typer.Option("--dataset", metavar="NAME", help="See `bench datasets`; or a folder, as in `bench run`.")
    ],
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol",
            metavar="NAME",
            help="Where the search begins, see `bench protocols`; by default demo for phantoms, else paper.",
        ),
    ] = "",
    trials: Annotated[
        int,
        typer.Option(
            "--trials",
            metavar="N",
            min=2,
            help="Settings of each network, the protocol's own among them.",
            rich_help_panel=_SEARCH,
        ),
    ] = 16,
    search: Annotated[
        list[str],
        typer.Option(
            "--search",
            metavar="FIELD=VALUES",
            help="Search a field too, or otherwise: loguniform:LOW:HIGH, uniform:LOW:HIGH, choice:A,B,C, around:FACTOR "
            "(the protocol's value over FACTOR to times FACTOR), or none. By default train.learning_rate=around:10 and "
            "train.weight_decay=loguniform:1e-6:1e-2. May be repeated.",
            rich_help_panel=_SEARCH,
        ),
    ] = [],  # noqa: B006 - typer's form of a repeatable option
    trial_steps: Annotated[
        int,
        typer.Option(
            "--trial-steps",
            metavar="N",
            min=0,
            help="Length of a trial; 0 for the protocol's own. The file keeps that.",
            rich_help_panel=_SEARCH,
        ),
    ] = 0,
    seed: Annotated[str, typer.Option("--seed", metavar="N", help="Seed of draws, weights and patches.")] = "0",
    set_: Changes = [],  # noqa: B006
    data_dir: DataDir = None,
    results: Results = DEFAULT_RESULTS,
    name: Annotated[
        str,
        typer.Option(
            "--name", metavar="WORD", help="Folder of the search, in DIR/tune; by default called as the protocol."
        ),
    ] = "",
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="File of what is found; by default DIR/tune/WORD/DATASET.toml."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be tried, and what is there.")] = False,
    timeout: Timeout = 0,
    checkpoint_every: CheckpointEvery = 600,
    workers: Workers = -1,
    device: Device = "",
    ray_address: RayAddress = "",
    gpus_per_job: GpusPerJob = 1,
    cpus_per_job: CpusPerJob = 0,
    ram_gib: RamGib = 0,
    retries: Retries = 3,
) -> None:
    """Search each network's learning rate, weight decay and the like, with the same budget for each.

    Settings are compared on the validation cases; the test cases are never seen. Ray Tune stops the worse ones early
    (ASHA). The best of each network goes into a file that `bench run --protocol FILE` takes. What is settled already is
    not run again; what was interrupted goes on.
    """
    from bench.cli.running import Carrying
    from bench.cli.tuning import carry_out, check_networks, finish, open_output, print_search, search_folder
    from bench.errors import BenchError
    from bench.plan import check_option_targets, choose_datasets, choose_models, default_protocol
    from bench.progress import ConsoleWatcher
    from bench.schedule.launch import Wishes, choose_scheduler
    from bench.search.plan import Wanted, plan_search
    from bench.search.space import search_space
    from bench.search.trials import Ledger

    cards = choose_datasets(split_names([dataset]))
    if len(cards) > 1:
        raise BenchError(f"--dataset {dataset}: settings are tuned on one dataset; expected one name")
    if len(seeds := parse_seeds(seed)) > 1:
        raise BenchError(f"--seed {seed}: every setting is tried once; expected one number")
    choose_scheduler("ray", ray_address, "", 1)  # which says so where Ray is not installed
    names = choose_models(split_names(model))
    space = search_space(search)
    check_option_targets([*set_, *(f"{dimension.field}=" for dimension in space)], names)
    preset = protocol or default_protocol(*cards.values())
    folder = search_folder(results, name or preset)
    wanted = Wanted(names, preset, tuple(set_), space, trials, seeds[0], trial_steps or None)
    wishes = Wishes(gpus_per_job, cpus_per_job, ram_gib, retries)
    watcher = ConsoleWatcher()
    (opened,) = open_datasets(list(cards), data_dir, watcher).values()
    planned = plan_search(opened, wanted)
    check_networks(planned, opened, wishes)
    target = output or folder / f"{planned.dataset}.toml"
    earlier = open_output(target, planned)
    carrying = Carrying(
        scheduler="ray",
        ray_address=ray_address,
        device=device,
        wishes=wishes,
        workers=workers,
        save_predictions=False,
        timeout_s=timeout * 3600 or None,
        checkpoint_interval_s=checkpoint_every,
    )
    ledger = Ledger(folder)
    if dry_run:
        print_search(planned, ledger, carrying, target)
        return
    if carry_out(planned, ledger, opened, carrying, watcher):
        typer.echo("stopped; the same command goes on")
        raise typer.Exit(130)
    if not finish(planned, ledger, target, earlier):
        raise typer.Exit(1)
