"""``bench predict``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import Changes, Device, Results
from bench.store import DEFAULT_RESULTS

if TYPE_CHECKING:
    import torch

    from bench.engine.predict import Predictor
    from bench.progress import Watcher


def predict(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="[RUN] INPUT OUTPUT",
            help="RUN: key of a run, its beginning, or its folder; left out with --weights. INPUT: folder of one case, "
            "or of several. OUTPUT: folder for the label maps, or a .nii.gz file for one case.",
        ),
    ],
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="Whose weights --weights holds.")] = "",
    weights: Annotated[
        Path | None, typer.Option("--weights", metavar="FILE", help="Weights saved by the code of a network's authors.")
    ] = None,
    dataset: Annotated[
        str,
        typer.Option("--dataset", metavar="NAME", help="With --weights: channels and labels; by default brats2023."),
    ] = "",
    protocol: Annotated[
        str,
        typer.Option("--protocol", metavar="NAME", help="With --weights: patch, windows, flips; by default paper."),
    ] = "",
    set_: Changes = [],  # noqa: B006 - typer's form of a repeatable option
    results: Results = DEFAULT_RESULTS,
    device: Device = "",
) -> None:
    """Segment new cases with a trained run, or with published weights.

    bench predict 3f2a ~/new-cases out

    bench predict --model segmamba_release --weights final_model.pt ~/new-cases out
    """
    import data
    from bench.engine.device import choose_device
    from bench.engine.interrupt import Interrupted, stop_on_signal
    from bench.engine.predict import output_files
    from bench.progress import ConsoleWatcher

    watcher = ConsoleWatcher()
    run, input_, output = _paths(paths, weights)
    chosen = choose_device(device)
    if weights is None:
        predictor = _from_run(
            run, results, chosen, {"--model": model, "--dataset": dataset, "--protocol": protocol}, set_
        )
    else:
        predictor = _from_weights(weights, model, dataset or "brats2023", protocol or "paper", set_, chosen, watcher)
    opened = data.open_folder(predictor.card.name, input_)
    cases = output_files(opened.inputs(), output)
    with stop_on_signal() as stop:
        try:
            predictor.predict(opened, cases, watcher, stop)
        except Interrupted:
            raise typer.Exit(130) from None
    for path in cases:
        typer.echo(path)


def _paths(paths: list[str], weights: Path | None) -> tuple[str, Path, Path]:
    """Run, input and output.

    Raises:
        BenchError: too many or too few are given.
    """
    from bench.errors import BenchError

    expected = ("INPUT", "OUTPUT") if weights else ("RUN", "INPUT", "OUTPUT")
    if len(paths) != len(expected):
        hint = "" if weights else "; published weights instead of a run come with --weights FILE --model NAME"
        raise BenchError(f"bench predict: expected {' '.join(expected)}; got {' '.join(paths)}{hint}")
    *run, input_, output = paths
    return "".join(run), Path(input_), Path(output)


def _from_run(run: str, results: Path, device: torch.device, foreign: dict[str, str], changes: list[str]) -> Predictor:
    from bench.engine.predict import Predictor
    from bench.errors import BenchError
    from bench.store import Store

    given = [option for option, value in (*foreign.items(), ("--set", changes)) if value]
    if given:
        raise BenchError(f"{given[0]} goes with --weights FILE only; the run {run} has its own")
    return Predictor.from_record(Store(results).find(run), device)


def _from_weights(
    weights: Path,
    model: str,
    dataset: str,
    protocol: str,
    changes: list[str],
    device: torch.device,
    watcher: Watcher,
) -> Predictor:
    import data
    from bench.engine.predict import Predictor
    from bench.errors import BenchError
    from bench.plan import check_option_targets
    from bench.protocol import load_protocol

    if not model:
        raise BenchError(f"--weights {weights}: whose are they? Say --model NAME, see `bench models`")
    check_option_targets(changes, [model])
    return Predictor.from_weights(weights, model, data.card(dataset), load_protocol(protocol, changes), device, watcher)
