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
    from data.card import DatasetCard
    from data.dataset import Dataset
    from data.volume import CaseFiles


def predict(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="[RUN] INPUT... OUTPUT",
            help="RUN: key of a run, its beginning, or its folder; left out with --weights. INPUT: folder of one case, "
            "folder of several, or the files of one case in the order of the dataset's channels. OUTPUT: folder for "
            "the label maps, or a .nii.gz file for one case.",
        ),
    ],
    probabilities: Annotated[
        bool,
        typer.Option("--probabilities", help="Also write each class's or region's probability, CASE_LABEL.nii.gz."),
    ] = False,
    checkpoint: Annotated[
        str,
        typer.Option("--checkpoint", metavar="last|best", help="Weights of RUN; by default those it was tested with."),
    ] = "",
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

    bench predict 3f2a t2w.nii.gz t2f.nii.gz t1n.nii.gz t1c.nii.gz tumour.nii.gz

    bench predict --model segmamba_release --weights final_model.pt ~/new-cases out
    """
    from bench.engine.device import choose_device
    from bench.engine.diverged import Diverged
    from bench.engine.interrupt import Interrupted, stop_on_signal
    from bench.engine.memory import is_out_of_memory
    from bench.engine.outputs import plan_outputs
    from bench.errors import BenchError
    from bench.progress import ConsoleWatcher

    watcher = ConsoleWatcher()
    run, inputs, output = _paths(paths, weights)
    chosen = choose_device(device)
    if weights is None:
        foreign = {"--model": model, "--dataset": dataset, "--protocol": protocol}
        predictor = _from_run(run, results, chosen, checkpoint, foreign, set_)
    elif checkpoint:
        raise BenchError(
            f"--checkpoint {checkpoint} chooses among the weights of a run; --weights {weights} is one file"
        )
    else:
        predictor = _from_weights(weights, model, dataset or "brats2023", protocol or "paper", set_, chosen, watcher)
    opened, cases = _open(inputs, predictor.card)
    plan = plan_outputs(cases, output, predictor.card, probabilities, predictor.region_names)
    with stop_on_signal() as stop:
        try:
            predictor.predict(opened, plan, watcher, stop)
        except Interrupted:
            raise typer.Exit(130) from None
        except Diverged as error:
            raise BenchError(str(error)) from error
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise BenchError(
                f"{chosen} ran out of memory even with one window at a time; what was segmented before stays. Free "
                "some of it, use --device cpu, or with --weights set a smaller data.patch_size"
            ) from error
    for outputs in plan:
        for path in outputs.files:
            typer.echo(path)


def _paths(paths: list[str], weights: Path | None) -> tuple[str, list[Path], Path]:
    """Run, inputs and output.

    Raises:
        BenchError: too few are given.
    """
    from bench.errors import BenchError

    expected = ("INPUT...", "OUTPUT") if weights else ("RUN", "INPUT...", "OUTPUT")
    if len(paths) < len(expected):
        hint = "" if weights else "; published weights instead of a run come with --weights FILE --model NAME"
        raise BenchError(f"bench predict: expected {' '.join(expected)}; got {' '.join(paths)}{hint}")
    run = "" if weights else paths[0]
    return run, [Path(path) for path in paths[0 if weights else 1 : -1]], Path(paths[-1])


def _open(inputs: list[Path], card: DatasetCard) -> tuple[Dataset, list[CaseFiles]]:
    """The inputs as a dataset, and the cases to segment.

    Raises:
        BenchError: a folder among several inputs.
        DataError: what lies there are no cases of this dataset.
    """
    import data
    from bench.errors import BenchError
    from data.single_files import case_from_files

    if len(inputs) == 1 and (inputs[0].is_dir() or not inputs[0].name.endswith((".nii", ".nii.gz"))):
        opened = data.open_folder(card, inputs[0])
        return opened, opened.inputs()
    folders = [path for path in inputs if path.is_dir()]
    if folders:
        raise BenchError(
            f"{folders[0]} is a folder among {len(inputs)} inputs ({', '.join(map(str, inputs))}); expected one "
            f"folder, or the files of one case in the order {' '.join(card.channels)}"
        )
    return data.open_folder(card, inputs[0].parent), [case_from_files(inputs, card)]


def _from_run(
    run: str, results: Path, device: torch.device, checkpoint: str, foreign: dict[str, str], changes: list[str]
) -> Predictor:
    from bench.engine.predict import Predictor
    from bench.errors import BenchError
    from bench.store import Store

    given = [option for option, value in (*foreign.items(), ("--set", changes)) if value]
    if given:
        raise BenchError(f"{given[0]} goes with --weights FILE only; the run {run} has its own")
    return Predictor.from_record(Store(results).find(run), device, checkpoint)


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
    from bench.plan import check_option_targets, protocols_of, resolved_options

    if not model:
        raise BenchError(f"--weights {weights}: whose are they? Say --model NAME, see `bench models`")
    check_option_targets(changes, [model])
    chosen = protocols_of([model], protocol, changes)[model]
    options = resolved_options(model, chosen)
    return Predictor.from_weights(weights, model, options, data.card(dataset), chosen, device, watcher)
