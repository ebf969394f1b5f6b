"""``bench data``"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.opening import open_dataset
from bench.cli.options import Changes, DataDir, Results, Values
from bench.store import DEFAULT_RESULTS

if TYPE_CHECKING:
    from data.card import DatasetCard
    from data.dataset import Dataset
    from data.prepare import Preparation, StoredCase
    from data.split import Split

app = typer.Typer(help="Make, check and prepare datasets.", no_args_is_help=True)

DatasetName = Annotated[
    str, typer.Argument(metavar="DATASET", help="See `bench datasets`; or a folder laid out as nnU-Net's or MSD's.")
]


@app.command()
def phantom(
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write to.")],
    cases: Annotated[int, typer.Option("--cases", metavar="N", help="How many patients.")] = 24,
    size: Annotated[int, typer.Option("--size", metavar="S", help="Voxels along each edge.")] = 64,
    seed: Annotated[int, typer.Option("--seed", metavar="K", help="Seed of the whole set.")] = 0,
    kind: Annotated[
        str, typer.Option("--kind", metavar="KIND", help="plain; or stress, small, faint and far-reaching lesions.")
    ] = "plain",
    workers: Annotated[int, typer.Option("--workers", min=1, help="Cases made at the same time.")] = 2,
) -> None:
    """Write synthetic brains with gliomas in the layout of BraTS2023."""
    from bench.progress import ConsoleWatcher
    from data.phantom import write_dataset
    from data.phantom_cache import POPULATIONS

    with ConsoleWatcher().bar("phantoms", cases) as bar:
        write_dataset(output, cases=cases, size=size, seed=seed, kind=kind, on_case=bar.advance, workers=workers)
    name = next(name for name, made_of in POPULATIONS.items() if made_of.kind.name == kind)
    typer.echo(f"{cases} cases in {output}; use them with --dataset {name} --data-dir {output}")


@app.command()
def marker(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PREDICTIONS]…", help="Folders of label maps; else the runs that kept theirs."),
    ] = None,
    dataset: Annotated[str, typer.Option("--dataset", metavar="NAME", help="The phantoms.")] = "phantom_stress",
    data_dir: DataDir = None,
    results: Results = DEFAULT_RESULTS,
    protocol: Annotated[str, typer.Option("--protocol", metavar="NAME", help="Only runs under this one.")] = "",
    set_: Values = [],  # noqa: B006
) -> None:
    """Of the rims that a phantom's marker decides, how many are called what it says: does a network see that far?"""
    from tabulate import tabulate

    from bench.errors import BenchError
    from bench.external import label_maps
    from bench.marker import judge
    from bench.progress import ConsoleWatcher
    from bench.protocol import wanted_values
    from bench.report.statistics import p_text

    wanted = wanted_values(set_)
    watcher = ConsoleWatcher()
    opened = open_dataset(dataset, data_dir, watcher)
    named = {str(folder): folder for folder in folders} if folders else _runs_on(opened, results, protocol, wanted)
    if not named:
        raise BenchError(
            f"{results}: found no run on these files of {dataset} that kept its predictions"
            f"{' and passes --protocol and --set' if protocol or set_ else ''}; name folders of label maps"
        )
    rows = []
    for name, folder in named.items():
        sight = judge(label_maps(folder), opened.root, watcher)
        told = ["" if sight.auc is None else f"{sight.auc:.3f}", "" if sight.p is None else p_text(sight.p)]
        rows.append([name, sight.cases, sight.enhancing, sight.right, *told])
    headers = ["", "cases", "enhancing", "right", "AUC", "p (AUC = 0.5)"]
    typer.echo(tabulate(rows, headers, disable_numparse=True, colalign=("left", *["right"] * 5)))
    typer.echo(
        "\nCases with rims of which nothing near them tells what they are. Who sees no marker has an AUC of 0.5."
    )


def _runs_on(dataset: Dataset, results: Path, protocol: str, wanted: Mapping[str, Any]) -> dict[str, Path]:
    """Folders of predictions of the complete runs on exactly these files, under such a protocol."""
    from bench.protocol import fits
    from bench.store import Store
    from data.fingerprint import fingerprint

    files, found = fingerprint(dataset.cases()), {}
    for record in Store(results).records():
        folder = record.folder / "predictions"
        if record.kind != "run" or record.status != "complete" or not folder.is_dir():
            continue
        job = record.content["job"]
        if job["data_fingerprint"] == files and fits(job["protocol"], protocol, wanted):
            found[f"{job['model']}, seed {job['seed']} ({record.key[:8]})"] = folder
    return dict(sorted(found.items()))


@app.command()
def check(
    dataset: DatasetName,
    data_dir: DataDir = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Cases read at the same time.")] = 2,
) -> None:
    """Read every file of a dataset and report what is wrong, case by case."""
    from bench.progress import ConsoleWatcher
    from data.check import check_dataset

    watcher = ConsoleWatcher()
    opened = open_dataset(dataset, data_dir, watcher)
    total = len(opened.survey().cases)
    with watcher.bar("checking", total) as bar:
        findings = check_dataset(opened, on_case=bar.advance, workers=workers)
    for finding in findings:
        typer.echo(f"{finding.severity}: {finding}")
    errors = sum(finding.severity == "error" for finding in findings)
    typer.echo(f"{total} cases in {opened.root}: {errors} errors, {len(findings) - errors} warnings")
    if errors:
        raise typer.Exit(1)


@app.command()
def prepare(
    dataset: DatasetName,
    data_dir: DataDir = None,
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol", metavar="NAME", help="See `bench protocols`; by default demo for phantoms, else paper."
        ),
    ] = "",
    set_: Changes = [],  # noqa: B006 - typer's form of a repeatable option
    workers: Annotated[int, typer.Option("--workers", min=1, help="Cases prepared at the same time.")] = 2,
) -> None:
    """Crop, resample and normalise the cases that `bench run` with the same options will need, and keep them."""
    import data
    from bench.engine.interrupt import Interrupted, StopRequest, stop_on_signal
    from bench.errors import BenchError
    from bench.plan import default_protocol, draw_splits
    from bench.progress import Bar, ConsoleWatcher
    from bench.protocol import AUTHOR, load_protocol
    from data.fingerprint import fingerprint
    from data.prepare import cache_folder, missing, plan_preparation
    from data.prepare import prepare as prepare_cases
    from data.summary import write_summary

    if protocol == AUTHOR:
        raise BenchError(
            f"--protocol {AUTHOR}: it is another for each network; expected one protocol. Say how the network's "
            "authors prepare, for example --protocol paper --set data.normalise=brain"
        )
    chosen = load_protocol(protocol or default_protocol(data.card(dataset)), set_)
    watcher = ConsoleWatcher()
    opened = open_dataset(dataset, data_dir, watcher)
    files = {case.id: case for case in opened.cases()}
    splits = draw_splits(list(files.values()), chosen).values()
    files_hash = fingerprint(files.values())
    folders: dict[Path, tuple[Mapping[str, StoredCase], Preparation]] = {}

    def advancing(bar: Bar, stop: StopRequest, skip: frozenset[str] = frozenset()) -> Callable[[str], None]:
        def on_case(case: str) -> None:
            if case not in skip:
                bar.advance(case)
            stop.check()

        return on_case

    def prepare_split(split: Split, stop: StopRequest) -> None:
        needed = [files[case] for case in (*split.train, *chosen.validation.choose(split.validation), *split.test)]
        with watcher.bar("surveying", len(split.train)) as bar:
            preparation = plan_preparation(
                opened,
                [files[case] for case in split.train],
                normalise=chosen.data.normalise,
                storage=chosen.data.storage,
                spacing_mm=chosen.data.spacing_mm,
                on_case=advancing(bar, stop),
                workers=workers,
            )
        folder = cache_folder(opened.card.name, files_hash, preparation)
        left = missing(needed, folder, preparation)
        there = frozenset(case.id for case in needed) - {case.id for case in left}
        if not left and folder not in folders:
            watcher.say(f"all {len(needed)} cases are there already")
        with watcher.bar("preparing", len(needed), done=len(there)) as bar:
            on_case = advancing(bar, stop, there)
            prepared = prepare_cases(opened, needed, folder, preparation, on_case, workers)
        earlier, _ = folders.get(folder, ({}, preparation))
        folders[folder] = {**earlier, **prepared}, preparation

    with stop_on_signal() as stop:
        try:
            for split in splits:  # folds whose training cases ask for the same preparation share a folder
                prepare_split(split, stop)
        except Interrupted:
            watcher.say("stopped on request; run the same command again to go on")
            raise typer.Exit(130) from None
    for folder, (prepared, preparation) in folders.items():
        typer.echo(f"{'folder':16} {folder}")
        for name, value in _summary_lines(write_summary(folder, prepared.values(), preparation), opened.card):
            typer.echo(f"{name:16} {value}")


def _summary_lines(summary: dict[str, Any], card: DatasetCard) -> list[tuple[str, str]]:
    """The counts of `data.summary.write_summary` for people."""
    preparation = summary["preparation"]
    lines = [
        ("cases", str(summary["cases"])),
        ("size", f"{summary['bytes'] / 2**20:,.1f} MiB as {preparation['storage']}"),
        ("voxels before", _range(summary["shape"])),
        ("voxels after", _range(summary["prepared_shape"])),
        ("mm before", _range(summary["spacing_mm"])),
        ("mm after", _range(summary["prepared_spacing_mm"])),
    ]
    for channel, intensity in zip(card.channels, preparation["intensities"], strict=False):
        if intensity is not None:
            clip = f"clipped to {intensity['low']:g} … {intensity['high']:g}"
            lines.append((channel, f"{clip}, mean {intensity['mean']:.1f}, deviation {intensity['std']:.1f}"))
    for value, count in summary["voxels"].items():
        name = card.labels[int(value)]
        lines.append((f"label {value}", f"{name}: {count:,} voxels in {summary['cases_with'][value]} cases"))
    return lines


def _range(found: dict[str, list[float]]) -> str:
    """``d × h × w``, with the smallest and the largest where they differ."""
    smallest, median, largest = (
        " × ".join(f"{value:.4g}" for value in found[which]) for which in ("smallest", "median", "largest")
    )
    return smallest if smallest == largest else f"{smallest} to {largest}, median {median}"
