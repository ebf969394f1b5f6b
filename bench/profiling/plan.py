"""What somebody asks to have profiled, as settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import models
from bench.errors import BenchError, unknown
from bench.fields import Precision
from bench.profiling.setting import PRECISIONS, WHATS, Machine, Mode, Setting, What
from bench.protocol import load_protocol

MODES: Mapping[str, tuple[Mode, ...]] = {"infer": ("infer",), "train": ("train",), "both": ("infer", "train")}


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        what: one of `WHATS`.
        models: names; empty for the eight of the SegMamba paper, or for all mixers.
        resolutions: edges of cubes, in voxels.
        mode: ``infer``, ``train`` or ``both``.
        batch: images at once.
        precision: empty for bf16 on a GPU and fp32 on a CPU.
        channels: of the image, or several numbers of features of a mixer.
        classes: logits per voxel.
        changes: ``model_options.NAME.OPTION=VALUE``.
        compile, channels_last, cudnn_benchmark: as in `Setting`.
        backend: of the selective scan; empty for the device's own.
        more: what else a kind of measurement takes.
    """

    what: str = "network"
    models: Sequence[str] = ()
    resolutions: Sequence[int] = (64,)
    mode: str = "both"
    batch: int = 1
    precision: str = ""
    channels: Sequence[int] = (4,)
    classes: int = 4
    changes: Sequence[str] = ()
    compile: bool = False
    channels_last: bool = False
    cudnn_benchmark: bool = True
    backend: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)


def make_settings(request: Request, machine: Machine) -> list[Setting]:
    """One setting for each network, size and mode; sizes that a network does not take become the nearest it takes.

    Raises:
        BenchError: something is none of the known names, or no positive number.
        ModelError: there is no such network or option.
    """
    _check(request)
    options = load_protocol("paper", request.changes).model_options
    return list(_networks(request, machine, options))


def _networks(request: Request, machine: Machine, options: Mapping[str, Mapping[str, Any]]) -> Iterator[Setting]:
    (channels,) = request.channels
    for resolution in request.resolutions:
        for name in request.models or models.SEGMAMBA_TABLE_1:
            resolved = models.resolve_options(name, options.get(name, {}))
            size = models.nearest_size(name, resolution, resolved)
            for mode in MODES[request.mode]:
                yield Setting(
                    what=cast(What, request.what),
                    model=name,
                    model_options=resolved,
                    image_size=size,
                    mode=mode,
                    batch=request.batch,
                    in_channels=channels,
                    classes=request.classes,
                    precision=chosen_precision(request, machine),
                    compile=request.compile,
                    channels_last=request.channels_last,
                    cudnn_benchmark=request.cudnn_benchmark,
                    backend=request.backend,
                    asked_size=(resolution, resolution, resolution),
                    more=request.more,
                )


def chosen_precision(request: Request, machine: Machine) -> Precision:
    """As asked, or what the device is made for."""
    return cast(Precision, request.precision or ("bf16" if machine.on_gpu else "fp32"))


def _check(request: Request) -> None:
    for kind, value, known in (
        ("what", request.what, WHATS),
        ("mode", request.mode, tuple(MODES)),
        ("precision", request.precision or PRECISIONS[0], PRECISIONS),
    ):
        if value not in known:
            raise BenchError(unknown(kind, value, known))
