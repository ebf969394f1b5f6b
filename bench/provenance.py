"""Where a result comes from: code, packages, hardware, settings that change numbers or speed."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from models.ops import resolve_backend

PACKAGES = ("segmamba-bench", "torch", "monai", "numpy", "scipy", "nibabel", "timm", "triton", "mamba-ssm")


def collect(device: torch.device) -> dict[str, Any]:
    """Facts about this process that a reader needs to judge or repeat a result."""
    return {
        "code": code_state(),
        "command": sys.argv,
        "python": platform.python_version(),
        # torch names its CUDA build in its own version only.
        "packages": {n: v for n in PACKAGES if (v := _version(n))} | {"torch": torch.__version__},
        "hardware": hardware(device),
        "settings": {
            "device": device.type,
            "dtype": "float32",
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "tf32": torch.backends.cuda.matmul.allow_tf32,
            "threads": torch.get_num_threads(),
            "selective_scan": resolve_backend(None, torch.empty(0, device=device)),
        },
    }


def code_state() -> dict[str, Any]:
    """Commit of the checkout this package runs from and whether it was changed; nulls where it is no checkout."""
    root = Path(__file__).resolve().parents[1]
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(_git(root, "status", "--porcelain", "--untracked-files=no"))}


def hardware(device: torch.device) -> dict[str, Any]:
    """Processor, memory, and the accelerator in use."""
    facts: dict[str, Any] = {"cpu": _cpu_name(), "cores": os.cpu_count(), "system": platform.platform()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "gpu": properties.name,
            "gpu_memory_bytes": properties.total_memory,
            "cuda": torch.version.cuda,
        }
    return facts


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git(root: Path, *arguments: str) -> str | None:
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
