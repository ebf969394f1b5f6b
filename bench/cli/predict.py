"""``bench predict``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import Device, Results
from bench.store import DEFAULT_RESULTS


def predict(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Key of a run, its beginning, or its folder.")],
    input_: Annotated[Path, typer.Argument(metavar="INPUT", help="Folder of one case, or of several.")],
    output: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="Folder for the label maps, or a .nii.gz file for one case.")
    ],
    results: Results = DEFAULT_RESULTS,
    device: Device = "",
) -> None:
    """Segment new cases with a trained run."""
    import data
    from bench.engine.device import choose_device
    from bench.engine.interrupt import Interrupted, stop_on_signal
    from bench.engine.predict import Predictor, output_files
    from bench.progress import ConsoleWatcher
    from bench.store import Store

    predictor = Predictor(Store(results).find(run), choose_device(device))
    dataset = data.open_folder(predictor.card.name, input_)
    cases = output_files(dataset.inputs(), output)
    with stop_on_signal() as stop:
        try:
            predictor.predict(dataset, cases, ConsoleWatcher(), stop)
        except Interrupted:
            raise typer.Exit(130) from None
    for path in cases:
        typer.echo(path)
