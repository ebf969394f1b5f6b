"""Sliding-window inference against MONAI's, on the same network, precision and mirror images: time, memory, agreement.

``python -m bench.profiling.inference --model segresnet --shape 155 240 240 --precision bf16``
"""

from __future__ import annotations

import argparse
import csv
import io
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import combinations
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor, nn

import models
from bench.atomic import write_text
from bench.engine.checkpoint import seed_everything
from bench.engine.device import choose_device
from bench.engine.infer import SlidingWindow
from bench.engine.memory import GIB, is_out_of_memory
from bench.engine.precision import arithmetic
from bench.errors import BenchError
from bench.fields import InferFields, Precision
from bench.provenance import hardware
from models.errors import ModelError

MONAI_AT_ONCE = (1, 2, 4, 8)


@dataclass(frozen=True)
class Timing:
    """One way of segmenting a volume.

    Attributes:
        how: ``ours`` or ``monai``.
        at_once: windows that pass through the network together.
        median_s: of the timed runs, from the volume on the device to the averaged logits on the device.
        fastest_s, slowest_s: of the same runs.
        peak_bytes: most that tensors took, weights and volume included; 0 on a CPU, where nobody counts.
        largest_difference: of the averaged logits from ours.
        note: ``out of memory`` where it was; the numbers are then 0.
    """

    how: str
    at_once: int
    median_s: float = 0.0
    fastest_s: float = 0.0
    slowest_s: float = 0.0
    peak_bytes: int = 0
    largest_difference: float = 0.0
    note: str = ""


def compare(
    model: nn.Module,
    image: Tensor,
    patch_size: tuple[int, int, int],
    infer: InferFields,
    *,
    monai_at_once: Sequence[int] = MONAI_AT_ONCE,
    repeats: int = 5,
) -> list[Timing]:
    """Time our sliding window and MONAI's on one volume.

    The ways take turns, so that a clock that slows down slows all of them; the first turn of each warms up and is not
    timed.

    Args:
        model: on the device of ``image``.
        image: (C, D, H, W).
        patch_size: (d, h, w).
        infer: overlap, blending, flips, precision.
        monai_at_once: the sizes of MONAI's batches to try.
        repeats: timed runs of each way.

    Returns:
        Ours first, then MONAI's in the order of their batches.
    """
    window = SlidingWindow(model, patch_size, infer, image.device)
    ways: list[tuple[str, int, Callable[[], Tensor]]] = [("ours", 0, lambda: window.logits(image))]
    ways += [("monai", count, _monai(model, image, patch_size, infer, count)) for count in monai_at_once]
    reference = window.logits(image)
    timings = []
    runs: dict[int, list[float]] = {}
    peaks: dict[int, int] = {}
    differences: dict[int, float] = {}
    for turn in range(repeats + 1):
        for place, (_, _, run) in enumerate(ways):
            if turn and place not in runs:
                continue
            try:
                found, took_s, peak = _timed(run, image.device)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                runs.pop(place, None)
                continue
            runs.setdefault(place, [])
            if turn:
                runs[place].append(took_s)
                peaks[place] = peak
            differences[place] = float((found.to(reference.device) - reference).abs().max())
            del found
    for place, (how, count, _) in enumerate(ways):
        count = count or window.at_once
        if place not in runs:
            timings.append(Timing(how, count, note="out of memory"))
            continue
        took = runs[place]
        timings.append(
            Timing(how, count, statistics.median(took), min(took), max(took), peaks[place], differences[place])
        )
    return timings


def _monai(
    model: nn.Module, image: Tensor, patch_size: tuple[int, int, int], infer: InferFields, at_once: int
) -> Callable[[], Tensor]:
    """MONAI's inferer on each mirror image, the logits averaged: what its users write."""
    from monai.inferers.inferer import SlidingWindowInferer

    slide = SlidingWindowInferer(patch_size, at_once, infer.overlap, mode=infer.blend, sigma_scale=0.125)
    axes = [axis + 2 for axis in infer.mirror_axes]
    turns = [turn for count in range(len(axes) + 1) for turn in combinations(axes, count)]

    @torch.no_grad()
    def run() -> Tensor:
        model.eval()
        with arithmetic(infer.precision, image.device):
            total = slide(image[None], model)
            assert isinstance(total, Tensor)
            for turn in turns[1:]:
                found = slide(image[None].flip(turn), model)
                assert isinstance(found, Tensor)
                total += found.flip(turn)
        return total[0].div_(len(turns))

    return run


def _timed(run: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, float, int]:
    """What a run returns, its seconds, its peak of memory in bytes."""
    if device.type != "cuda":
        began = time.perf_counter()
        return run(), time.perf_counter() - began, 0
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    began = time.perf_counter()
    found = run()
    torch.cuda.synchronize(device)
    return found, time.perf_counter() - began, torch.cuda.max_memory_allocated(device)


def to_table(timings: Sequence[Timing]) -> str:
    """For people."""
    from tabulate import tabulate

    ours = timings[0].median_s
    rows = [
        (t.how, t.at_once, t.note, "", "", "", "")
        if t.note
        else (
            t.how,
            t.at_once,
            f"{t.median_s:.3f}",
            f"{t.fastest_s:.3f} to {t.slowest_s:.3f}",
            f"{t.median_s / ours:.3f}",
            f"{t.peak_bytes / GIB:.2f}" if t.peak_bytes else "",
            f"{t.largest_difference:.2g}",
        )
        for t in timings
    ]
    headers = ("how", "at once", "median s", "range s", "times ours", "peak GiB", "largest difference")
    return tabulate(rows, headers, disable_numparse=True)


def to_csv(timings: Sequence[Timing], facts: dict[str, object]) -> str:
    """One row per way, with the facts of the comparison in each."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*(field.name for field in fields(Timing)), *facts], lineterminator="\n")
    writer.writeheader()
    writer.writerows([{**asdict(timing), **facts} for timing in timings])
    return text.getvalue()


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, compare, print; ``--output`` also writes a CSV."""
    parser = argparse.ArgumentParser(prog="python -m bench.profiling.inference", description=__doc__)
    parser.add_argument("--model", required=True, help="a registered network, see `bench models`")
    parser.add_argument("--shape", type=int, nargs=3, default=(155, 240, 240), metavar=("D", "H", "W"))
    parser.add_argument("--patch", type=int, nargs=3, default=(128, 128, 128), metavar=("D", "H", "W"))
    parser.add_argument("--channels", type=int, default=4, help="of the image")
    parser.add_argument("--classes", type=int, default=4, help="that the network tells apart")
    parser.add_argument("--overlap", type=float, default=0.5)
    parser.add_argument("--precision", choices=get_args(Precision), default="bf16")
    parser.add_argument("--no-flips", action="store_true", help="the volume alone, without its 7 mirror images")
    parser.add_argument("--at-once", type=int, nargs="+", default=MONAI_AT_ONCE, metavar="N", help="MONAI's batches")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each way")
    parser.add_argument("--device", default="", help="cpu, cuda, cuda:1; by default the GPU if there is one")
    parser.add_argument("--output", type=Path, metavar="FILE.csv")
    given = parser.parse_args(arguments)
    try:
        _run(given)
    except (BenchError, ModelError) as error:
        parser.exit(2, f"error: {error}\n")


def _run(given: argparse.Namespace) -> None:
    device = choose_device(given.device)
    torch.backends.cudnn.benchmark = True
    patch_size = (given.patch[0], given.patch[1], given.patch[2])
    infer = InferFields(
        overlap=given.overlap,
        blend="gaussian",
        mirror_axes=() if given.no_flips else (0, 1, 2),
        output="argmax",
        precision=given.precision,
    )
    seed_everything(0)
    model = models.create(
        given.model, in_channels=given.channels, out_channels=given.classes, image_size=patch_size
    ).to(device)
    image = torch.randn(given.channels, *given.shape).to(device)
    timings = compare(model, image, patch_size, infer, monai_at_once=given.at_once, repeats=given.repeats)
    facts = {
        "model": given.model,
        "shape": "x".join(map(str, given.shape)),
        "patch": "x".join(map(str, patch_size)),
        "channels": given.channels,
        "classes": given.classes,
        "overlap": given.overlap,
        "mirror_images": 2 ** len(infer.mirror_axes),
        "precision": given.precision,
        "cudnn_benchmark": True,
        "repeats": given.repeats,
        "device": _name(device),
        "torch": torch.__version__,
        "monai": _monai_version(),
    }
    sys.stdout.write(", ".join(f"{name} {value}" for name, value in facts.items()) + "\n\n")
    sys.stdout.write(to_table(timings) + "\n")
    if given.output is not None:
        write_text(given.output, to_csv(timings, facts))


def _name(device: torch.device) -> str:
    found = hardware(device)
    return str(found["gpu"] if "gpu" in found else f"{found['cpu']}, {torch.get_num_threads()} threads")


def _monai_version() -> str:
    from importlib.metadata import version

    return version("monai")


if __name__ == "__main__":
    main()
