"""Profiles made without measuring."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.store import Record, Store

RULE = "until the 95 % interval of the median is within 1 % of it"
PARTS = {"forward": 0.3, "backward": 0.6, "optimiser": 0.1}


def times(seconds: float, mode: str = "infer", repeats: int = 20) -> dict[str, Any]:
    """A record's times of a pass that takes so long."""
    few = repeats < 6
    return {
        "median_s": seconds,
        "p10_s": 0.9 * seconds,
        "p90_s": 1.2 * seconds,
        "median_low_s": None if few else 0.99 * seconds,
        "median_high_s": None if few else 1.01 * seconds,
        "repeats": repeats,
        "first_s": 5 * seconds,
        "parts": {name: part * seconds for name, part in PARTS.items()} if mode == "train" else {},
        "rule": RULE,
    }


def memory(peak_bytes: int, on_gpu: bool) -> dict[str, int]:
    """A record's memory where tensors took so much."""
    if not on_gpu:
        return {"peak_allocated_bytes": peak_bytes, "peak_process_bytes": peak_bytes + 2**29}
    beyond = {"peak_reserved_bytes": peak_bytes + 2**28, "driver_bytes": peak_bytes + 2**30}
    return {"peak_allocated_bytes": peak_bytes, **beyond, "driver_used_bytes": 2**33, "peak_process_bytes": 2**32}


@pytest.fixture
def profile(tmp_path: Path) -> Callable[..., Record]:
    """Writes the record of a measurement into ``root``, by default the test's folder.

    ``seconds`` and ``peak`` are of a pass; ``found`` and ``job`` change or add to what is measured and to the job,
    ``facts`` to the record; of one that is not complete nothing is measured but what ``found`` says.
    """

    def make(
        model: str = "segmamba",
        size: int | Sequence[int] = 64,
        mode: str = "infer",
        what: str = "network",
        seconds: float = 0.1,
        peak: int = 3 * 2**30,
        repeats: int = 20,
        status: str = "complete",
        hardware: str = "NVIDIA H200",
        found: Mapping[str, Any] | None = None,
        job: Mapping[str, Any] | None = None,
        files: Mapping[str, bytes] | None = None,
        root: Path = tmp_path,
        **facts: Any,
    ) -> Record:
        shape = [size] * 3 if isinstance(size, int) else list(size)
        voxels = shape[0] * shape[1] * shape[2]
        on_gpu = "threads" not in hardware
        whole = {
            "what": what,
            "model": model,
            "model_options": {},
            "image_size": shape,
            "mode": mode,
            "batch": 1,
            "in_channels": 4,
            "classes": 4,
            "precision": "bf16" if on_gpu else "fp32",
            "compile": False,
            "channels_last": False,
            "cudnn_benchmark": True,
            "backend": "triton" if on_gpu else "torch",
            "hardware": hardware,
            "torch": "2.11.0+cu130",
            **(job or {}),
        }
        measured: dict[str, Any] = {}
        if status == "complete" and what in ("network", "mixer", "volume"):
            measured = {
                "parameters": 67_000_000,
                "time": times(seconds, mode, repeats),
                "memory": memory(peak, on_gpu),
                "peak_memory_bytes": peak,
                "energy_j": 50.0 if on_gpu else None,
                "voxels_per_s": whole["batch"] * voxels / seconds,
            }
        if measured and what != "volume":
            scan = voxels * 100 if model.startswith(("segmamba", "mamba")) else 0
            counted = {"convolution": voxels * 3000, "matrix_product": voxels * 900, "scan": scan}
            name = "latency_s" if mode == "infer" else "train_step_s"
            measured |= {
                "gmacs": sum(counted.values()) / 1e9,
                "operations": {**counted, "uncounted": {"native_layer_norm": 9 * voxels, "gelu": voxels}},
                name: seconds,
                **({"tokens": voxels} if what == "mixer" else {}),
            }
        if measured and what == "volume":
            measured |= {"case_s": seconds, "windows": 18, "at_once": 2}
        opened = Store(root).open_profile(
            whole,
            hardware=hardware,
            setting=f"{shape[0]}³, {whole['precision']}",
            measured={**measured, **(found or {})},
            provenance={"code": {"commit": "abcdef0123456789", "dirty": False}},
            notes=[],
            **facts,
        )
        for file, content in (files or {}).items():
            opened.attach(file, content)
        record = opened.finish(status)
        # As it is read back, not as it was made.
        return Record(record.folder, json.loads((record.folder / "record.json").read_text()))

    return make
