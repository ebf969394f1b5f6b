"""``bench profile``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import Device, Results, split_names
from bench.store import DEFAULT_RESULTS

if TYPE_CHECKING:
    from bench.profiling.plan import Request
    from bench.profiling.suite import Conduct
    from bench.progress import Watcher
    from bench.store import Record, Store

FORMATS = ("text", "markdown", "csv", "latex", "html")
HOW, OTHER = "How it is measured", "What else is measured"


def profile(
    model: Annotated[
        list[str],
        typer.Option("--model", metavar="NAME[,NAME…]", help="Networks, mixers, scans; by default the paper's eight."),
    ] = [],  # noqa: B006
    resolution: Annotated[
        str, typer.Option("--resolution", metavar="N[,N…]", help="Edges of cubes in voxels; by default 64.")
    ] = "",
    mode: Annotated[str, typer.Option("--mode", help="infer, train or both; by default both.")] = "",
    batch: Annotated[int, typer.Option("--batch", metavar="N", help="Images at once.")] = 1,
    precision: Annotated[
        str, typer.Option("--precision", help="fp32, tf32, bf16 or fp16; by default bf16 on a GPU, fp32 on a CPU.")
    ] = "",
    channels: Annotated[
        str, typer.Option("--channels", metavar="N[,N…]", help="Of the image (4); of a mixer's or scan's features.")
    ] = "",
    classes: Annotated[int, typer.Option("--classes", metavar="N", help="Logits per voxel.")] = 4,
    set_: Annotated[
        list[str], typer.Option("--set", metavar="model_options.NAME.OPTION=VALUE", help="Change a network's option.")
    ] = [],  # noqa: B006
    results: Results = DEFAULT_RESULTS,
    device: Device = "",
    what: Annotated[
        str,
        typer.Option(
            "--what",
            help="network (the default), mixer (token mixers alone), scan (the selective scan alone, by each "
            "backend), volume (a whole case) or receptive-field.",
            rich_help_panel=OTHER,
        ),
    ] = "",
    scaling: Annotated[
        bool,
        typer.Option("--scaling", help="How time and memory grow with size: exponents, figure.", rich_help_panel=OTHER),
    ] = False,
    ceiling: Annotated[
        float,
        typer.Option(
            "--ceiling", metavar="GIB", min=0, help="The largest cube in that much memory.", rich_help_panel=OTHER
        ),
    ] = 0.0,
    operators: Annotated[
        int,
        typer.Option(
            "--operators", metavar="N", min=0, help="Also the N operators that take most time.", rich_help_panel=OTHER
        ),
    ] = 0,
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace", metavar="DIR", help="Also Chrome traces of one pass, into that folder.", rich_help_panel=OTHER
        ),
    ] = None,
    shape: Annotated[
        str, typer.Option("--shape", metavar="D,H,W", help="Of the volume, in voxels.", rich_help_panel=OTHER)
    ] = "155,240,240",
    overlap: Annotated[float, typer.Option("--overlap", help="Of the volume's windows.", rich_help_panel=OTHER)] = 0.5,
    run: Annotated[
        str,
        typer.Option("--run", metavar="RUN", help="Receptive field of that trained run.", rich_help_panel=OTHER),
    ] = "",
    inputs: Annotated[
        int,
        typer.Option("--inputs", metavar="N", help="Of a receptive field's average.", rich_help_panel=OTHER),
    ] = 8,
    compile_: Annotated[
        bool, typer.Option("--compile", help="Compile networks with torch.compile.", rich_help_panel=HOW)
    ] = False,
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="Lay tensors out with channels last.", rich_help_panel=HOW)
    ] = False,
    fused: Annotated[
        bool,
        typer.Option("--fused", help="Norms and depth-wise convolutions as fused kernels.", rich_help_panel=HOW),
    ] = False,
    graph: Annotated[bool, typer.Option("--graph", help="Replay passes as a CUDA graph.", rich_help_panel=HOW)] = False,
    optimised: Annotated[
        bool | None,
        typer.Option(
            "--optimised/--as-published",
            help="With channels last, and on a GPU fused and as a graph; or without, and with mamba-ssm's scan.",
            rich_help_panel=HOW,
        ),
    ] = None,
    cudnn_benchmark: Annotated[
        bool,
        typer.Option(
            "--cudnn-benchmark/--no-cudnn-benchmark",
            help="Let cuDNN try its algorithms and keep the fastest, as trainings do.",
            rich_help_panel=HOW,
        ),
    ] = True,
    backend: Annotated[
        str, typer.Option("--backend", help="Of the selective scan; by default the device's own.", rich_help_panel=HOW)
    ] = "",
    time_limit: Annotated[
        float,
        typer.Option("--time-limit", metavar="SECONDS", min=1, help="For each measurement.", rich_help_panel=HOW),
    ] = 600.0,
    again: Annotated[
        bool, typer.Option("--again", help="Measure anew what this version has measured.", rich_help_panel=HOW)
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Measure nothing: show what the records hold.", rich_help_panel=HOW)
    ] = False,
    format_: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="text, markdown, csv, latex or html.")
    ] = "text",
    output: Annotated[
        Path | None, typer.Option("--output", metavar="DIR", help="Also tables as Markdown and figures, there.")
    ] = None,
) -> None:
    """Measure what networks cost: time, memory, energy, operations, of an inference and of a training step.

    Each measurement runs in a process of its own and is a record; what is there already is not measured again.
    """
    from bench.errors import BenchError, unknown
    from bench.profiling.plan import Request
    from bench.profiling.suite import Conduct
    from bench.progress import ConsoleWatcher
    from bench.report.profiles import profiles_csv, profiles_sheets, write_profiles
    from bench.report.render import render_sheets
    from bench.store import Store

    if format_ not in FORMATS:
        raise BenchError(unknown("format", format_, FORMATS))
    if ceiling and what:
        raise BenchError(f"--ceiling with --what {what}: it is a measurement of its own; leave one of them out")
    request = Request(
        what="ceiling" if ceiling else what or "network",
        models=split_names(model),
        resolutions=_numbers("--resolution", resolution),
        mode=mode,
        batch=batch,
        precision=precision,
        channels=_numbers("--channels", channels),
        classes=classes,
        changes=set_,
        scaling=scaling,
        limit_bytes=round(ceiling * 2**30),
        shape=_shape(shape),
        overlap=overlap,
        inputs=inputs,
        run=run,
        compile=compile_,
        channels_last=channels_last,
        fused=fused,
        graph=graph,
        optimised=optimised,
        cudnn_benchmark=cudnn_benchmark,
        backend=backend,
    )
    store, watcher = Store(results), ConsoleWatcher()
    if show:
        records = _there(store, request, bool(what or ceiling))
    else:
        conduct = Conduct(device, time_limit, again, operators, trace)
        records = _measure(request, store, conduct, watcher)
    sheets = profiles_sheets(records)
    typer.echo(profiles_csv(records) if format_ == "csv" else render_sheets(sheets, format_), nl=False)
    if output is not None:
        for path in write_profiles(records, output):
            watcher.say(f"wrote {path}")
    if any(record.status != "complete" for record in records) and not show:
        raise typer.Exit(1)


def _measure(request: Request, store: Store, conduct: Conduct, watcher: Watcher) -> list[Record]:
    from bench.profiling.apart import Apart
    from bench.profiling.plan import check_request, make_settings
    from bench.profiling.suite import ask_machine, measure_all

    check_request(request)  # before anything that takes seconds
    try:
        with Apart() as apart:
            machine = ask_machine(apart, conduct.device)
            settings = make_settings(request, machine, store)
            watcher.say(f"{len(settings)} measurements on {machine.hardware}, torch {machine.torch}")
            return measure_all(settings, store, machine, conduct, apart, watcher)
    except KeyboardInterrupt:
        watcher.say("stopped; what has been measured is kept, and the same command goes on from there")
        raise typer.Exit(130) from None


def _there(store: Store, request: Request, only_what: bool) -> list[Record]:
    """The profiles among the records, of the networks, sizes and kind that were named."""
    from bench.errors import BenchError

    found = [
        record
        for record in store.records()
        if record.kind == "profile"
        and not record.faults
        and (not only_what or record.content["job"].get("what") == request.what)
        and (not request.models or record.content["job"]["model"] in request.models)
        and (not request.resolutions or record.content["job"].get("image_size", [0])[0] in request.resolutions)
    ]
    if not found:
        raise BenchError(f"no such profile in {store.root}; make one with: bench profile --resolution 64")
    return found


def _numbers(option: str, text: str) -> list[int]:
    """``"64,96"`` to numbers."""
    from bench.errors import BenchError

    parts = split_names([text])
    if not all(part.isascii() and part.isdecimal() and int(part) > 0 for part in parts):
        raise BenchError(f"{option} {text!r}: expected whole numbers from 1, separated by commas, e.g. {option} 64,96")
    return list(dict.fromkeys(int(part) for part in parts))


def _shape(text: str) -> tuple[int, int, int]:
    from bench.errors import BenchError

    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 3 or not all(part.isascii() and part.isdecimal() and int(part) > 0 for part in parts):
        raise BenchError(f"--shape {text!r}: expected three whole numbers D,H,W in voxels, e.g. 155,240,240")
    depth, height, width = map(int, parts)
    return depth, height, width
