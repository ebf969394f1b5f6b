"""What somebody asks to have profiled, as settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, cast

import models
from bench.engine.network import count_channels
from bench.engine.predict import card_of, target_of
from bench.errors import BenchError, unknown
from bench.fields import Precision
from bench.plan import check_option_targets, choose_models
from bench.profiling.mixers import MIXERS, check_mixer
from bench.profiling.scans import SCANS, STATES, check_scan, choose_scans
from bench.profiling.setting import OF_TOKENS, PRECISIONS, WHATS, Machine, Mode, Setting, Size, What
from bench.protocol import load_protocol
from bench.store import Store
from models.ops import backends

MODES: Mapping[str, tuple[Mode, ...]] = {"infer": ("infer",), "train": ("train",), "both": ("infer", "train")}
# Edges of cubes where none are asked for: the smallest that all networks take, the protocol's patch, ever larger ones.
_ONE, _PATCH, _SEVERAL = (64,), (128,), (64, 96, 128)
# What runs whole networks, whose layers can be fused and whose passes replayed.
_FUSED = ("network", "volume", "ceiling")
_FEATURES, _FEATURES_ON_GPU = (8, 16, 32), (8, 16, 32, 64)
_MIXER_CHANNELS, _MIXER_CHANNELS_ON_GPU = (48,), (48, 96, 192, 384)
_SCAN_CHANNELS = (96,)
# A case of BraTS as (D, H, W).
_SHAPE = (155, 240, 240)
_IMAGE_CHANNELS = 4


@dataclass(frozen=True)
class Request:
    """What is asked for; what is empty or None is chosen to suit the device.

    Attributes:
        what: one of `WHATS`.
        models: names; empty for the eight of the SegMamba paper, for all mixers, or for the scans that can run.
        resolutions: edges of cubes, in voxels.
        mode: ``infer``, ``train`` or ``both``.
        batch: images at once.
        precision: by default fp32 on a CPU; on a GPU bf16, but tf32 for a receptive field, whose far parts are faint.
        channels: of the image, 4 by default; for mixers and scans of the features, several if need be.
        classes: logits per voxel.
        changes: ``model_options.NAME.OPTION=VALUE``.
        scaling: whether the growth with size is wanted, for which it takes several.
        limit_bytes: memory under which the largest cube is sought.
        shape: (D, H, W) of the volume, in voxels.
        overlap: of its windows.
        inputs: over which a receptive field is averaged.
        run: record whose trained network it is, by key or folder; empty for an untrained one.
        compile, channels_last, fused, graph, cudnn_benchmark, backend: as in `Setting`.
        optimised: whether to measure with all optimisations that the machine has, or, where it is said not to, as
            published: with the published kernel of the scan too, where it is installed.
    """

    what: str = "network"
    models: Sequence[str] = ()
    resolutions: Sequence[int] = ()
    mode: str = ""
    batch: int = 1
    precision: str = ""
    channels: Sequence[int] = ()
    classes: int = 4
    changes: Sequence[str] = ()
    scaling: bool = False
    limit_bytes: int = 0
    shape: Size = _SHAPE
    overlap: float = 0.5
    inputs: int = 8
    run: str = ""
    compile: bool = False
    channels_last: bool = False
    fused: bool = False
    graph: bool = False
    optimised: bool | None = None
    cudnn_benchmark: bool = True
    backend: str = ""


def make_settings(request: Request, machine: Machine, store: Store) -> list[Setting]:
    """One setting for each network, size and mode; sizes that a network does not take become the nearest that it takes.

    Args:
        request: what is asked for.
        machine: what measures.
        store: of the record that ``request.run`` names.

    Raises:
        BenchError: something is none of the known names, not a positive number, or does not go with the rest.
        ModelError: there is no such network or option.
    """
    check_request(request)
    for name in ("fused", "graph"):
        if getattr(request, name) and not machine.on_gpu:
            raise BenchError(f"--{name} on {machine.hardware}: it needs a GPU; leave it out")
    if request.what == "mixer":
        return list(_mixers(request, machine))
    if request.what == "scan":
        return list(_scans(request, machine))
    if request.what == "receptive-field" and request.run:
        return [_of_run(request, machine, store)]
    made = list(_networks(request, machine))
    if request.what == "volume":
        return [replace(one, more={**one.more, "flips": flips}) for one in made for flips in (1, 8)]
    return made


def _networks(request: Request, machine: Machine) -> Iterator[Setting]:
    names = choose_models(request.models or ["all"])
    check_option_targets(request.changes, names)
    options = load_protocol("paper", request.changes).model_options
    for resolution in request.resolutions or _resolutions(request, machine):
        for name in names:
            resolved = models.resolve_options(name, options.get(name, {}))
            for mode in _modes(request):
                yield _setting(
                    request,
                    machine,
                    model=name,
                    model_options=resolved,
                    image_size=models.nearest_size(name, resolution, resolved),
                    asked_size=(resolution,) * 3,
                    mode=mode,
                    in_channels=(request.channels or (_IMAGE_CHANNELS,))[0],
                    classes=request.classes,
                )


def _mixers(request: Request, machine: Machine) -> Iterator[Setting]:
    on_gpu = machine.on_gpu
    resolutions = request.resolutions or (_FEATURES_ON_GPU if on_gpu else _FEATURES)
    for channels in request.channels or (_MIXER_CHANNELS_ON_GPU if on_gpu else _MIXER_CHANNELS):
        for resolution in resolutions:
            for name in request.models or list(MIXERS):
                check_mixer(name, channels)
                for mode in _modes(request):
                    yield _setting(
                        request,
                        machine,
                        model=name,
                        model_options={},
                        image_size=(resolution,) * 3,
                        asked_size=(resolution,) * 3,
                        mode=mode,
                        in_channels=channels,
                        classes=channels,
                        called=MIXERS[name].title,
                    )


def _scans(request: Request, machine: Machine) -> Iterator[Setting]:
    grown = _FEATURES_ON_GPU if machine.on_gpu else _FEATURES
    resolutions = request.resolutions or (grown if request.scaling else _ONE)
    names = choose_scans(request.models, machine.obstacles)
    for channels, resolution, name, mode in product(
        request.channels or _SCAN_CHANNELS, resolutions, names, _modes(request)
    ):
        scan = SCANS[name]
        yield _setting(
            request,
            machine,
            model=name,
            model_options={},
            image_size=(resolution,) * 3,
            asked_size=(resolution,) * 3,
            mode=mode,
            in_channels=channels,
            classes=channels,
            backend=scan.backend,
            cudnn_benchmark=True,  # there is nothing for cuDNN to choose
            more={"states": STATES, "layout": scan.layout},
            called=scan.title,
        )


def _of_run(request: Request, machine: Machine, store: Store) -> Setting:
    """The network of a record, on its own patch."""
    record = store.find(request.run)
    if record.kind != "run" or record.status != "complete":
        raise BenchError(
            f"--run {request.run}: {record.folder} is {record.status or 'unknown'}, of the kind {record.kind or '?'}; "
            "expected a complete run with its weights"
        )
    if request.models or request.resolutions or request.changes or request.channels:
        raise BenchError(
            "--run says which network, channels and patch it is; leave --model, --resolution, --channels and --set out"
        )
    job = record.content["job"]
    card = card_of(record)
    return _setting(
        request,
        machine,
        model=job["model"],
        model_options=models.resolve_options(job["model"], job["model_options"]),
        image_size=tuple(job["protocol"]["data"]["patch_size"]),
        asked_size=tuple(job["protocol"]["data"]["patch_size"]),
        mode="infer",
        in_channels=len(card.channels),
        classes=count_channels(card, target_of(record)),
        more={"inputs": request.inputs, "run": record.key},
        weights_from=str(record.folder.resolve()),
    )


def _setting(request: Request, machine: Machine, **of_cell: Any) -> Setting:
    on_gpu: Precision = "tf32" if request.what == "receptive-field" else "bf16"
    default: Precision = on_gpu if machine.on_gpu else "fp32"
    optimised = bool(request.optimised)
    return Setting(
        **{
            "what": cast(What, request.what),
            "batch": request.batch,
            "precision": cast(Precision, request.precision) or default,
            "compile": request.compile,
            "channels_last": request.channels_last or optimised,
            "fused": request.fused or (optimised and machine.on_gpu and request.what in _FUSED),
            "graph": request.graph or (optimised and machine.on_gpu and request.what in _FUSED),
            # A receptive field takes a few passes, which the choice of kernels would outlast.
            "cudnn_benchmark": request.cudnn_benchmark and request.what != "receptive-field",
            "backend": request.backend or ("" if request.optimised is not False else _published_scan(machine)),
            "more": _more(request),
            **of_cell,
        }
    )


def _published_scan(machine: Machine) -> str:
    return "torch" if "mamba_ssm" in machine.obstacles else "mamba_ssm"


def _more(request: Request) -> dict[str, Any]:
    if request.what == "volume":
        return {"shape": list(request.shape), "overlap": request.overlap}
    if request.what == "ceiling":
        return {"limit_bytes": request.limit_bytes}
    if request.what == "receptive-field":
        return {"inputs": request.inputs, "run": ""}
    return {}


def _modes(request: Request) -> tuple[Mode, ...]:
    return ("infer",) if request.what in ("volume", "receptive-field") else MODES[request.mode or "both"]


def _resolutions(request: Request, machine: Machine) -> tuple[int, ...]:
    if request.what == "ceiling":
        return (1,)  # from which it looks upwards
    if request.scaling:
        return (*_SEVERAL, 160) if machine.on_gpu else _SEVERAL
    if request.what == "volume" or (request.what == "receptive-field" and machine.on_gpu):
        return _PATCH
    return _ONE


def check_request(request: Request) -> None:
    """See that what is asked for makes sense on any machine.

    Raises:
        BenchError: it does not.
    """
    for option, value, known in (
        ("--what", request.what, WHATS),
        ("--mode", request.mode or "both", tuple(MODES)),
        ("--precision", request.precision or PRECISIONS[0], PRECISIONS),
        ("--backend", request.backend or backends()[0], backends()),
    ):
        if value not in known:
            raise BenchError(unknown(option, value, known))
    counts = {"--resolution": request.resolutions, "--channels": request.channels, "--batch": (request.batch,)}
    counts |= {"--classes": (request.classes,), "--shape": request.shape, "--inputs": (request.inputs,)}
    for option, numbers in counts.items():
        if any(number < 1 for number in numbers):
            raise BenchError(f"{option} {','.join(map(str, numbers))}: expected whole numbers from 1")
    for change in request.changes:
        if not change.strip().startswith("model_options."):
            raise BenchError(
                f"--set {change}: a profile is made without a protocol; expected model_options.NAME.OPTION=VALUE"
            )
    if request.what not in OF_TOKENS and len(request.channels) > 1:
        raise BenchError(f"--channels {','.join(map(str, request.channels))}: expected one number of image channels")
    if request.mode and request.mode != "infer" and request.what in ("volume", "receptive-field"):
        raise BenchError(f"--mode {request.mode}: --what {request.what} is without training; leave --mode out")
    _check_company(request)


def _check_company(request: Request) -> None:
    """Refuse options that another one makes meaningless."""
    sizes = len(set(request.resolutions))
    if request.scaling and request.what not in ("network", *OF_TOKENS):
        raise BenchError(f"--scaling with --what {request.what}: expected network, mixer or scan")
    if request.scaling and 0 < sizes < 3:
        raise BenchError(
            f"--scaling with {sizes} resolutions: an exponent and its interval take three; e.g. --resolution 64,96,128"
        )
    if request.what == "ceiling" and request.resolutions:
        raise BenchError("--ceiling looks for the resolution; leave --resolution out")
    if request.run and request.what != "receptive-field":
        raise BenchError(f"--run with --what {request.what}: expected --what receptive-field")
    if not 0 <= request.overlap < 1:
        raise BenchError(f"--overlap {request.overlap:g}: expected a share from 0 to below 1")
    for name in ("fused", "graph"):
        if getattr(request, name) and request.what not in _FUSED:
            raise BenchError(f"--{name} with --what {request.what}: expected network, volume or --ceiling")
    if request.what == "scan":
        _check_scans(request)


def _check_scans(request: Request) -> None:
    """Refuse what is not known of scans, and options of which a scan has nothing."""
    for name in request.models or SCANS:
        check_scan(name, request.precision)
    for option, given, instead in (
        ("--backend", request.backend, "--model names the backends"),
        ("--channels-last", request.channels_last, "--model names the layouts"),
        ("--optimised", request.optimised, "--model names what is compared"),
        ("--compile", request.compile, "backends bring their kernels"),
        ("--set", request.changes, "there is no network whose option it could be"),
    ):
        if given:
            raise BenchError(f"{option} with --what scan: {instead}; leave {option} out")
