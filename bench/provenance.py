"""Where a result comes from: code, packages, hardware, settings that change numbers or speed."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

PACKAGES = ("segmamba-bench", "torch", "monai", "numpy", "scipy", "nibabel", "timm", "triton", "mamba-ssm")


def software() -> dict[str, Any]:
    """Code, command and packages of this process."""
    return {
        "code": code_state(),
        "command": sys.argv,
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }


def collect(device: torch.device) -> dict[str, Any]:
    """Facts about this process that a reader needs to judge or repeat what it computes on a device."""
    import torch

    from models.ops import resolve_backend

    facts = software()
    facts["packages"]["torch"] = torch.__version__  # which names its CUDA build
    return facts | {
        "hardware": hardware(device),
        "settings": {
            "device": device.type,
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "threads": torch.get_num_threads(),
            "selective_scan": resolve_backend(None, torch.empty(0, device=device)),
        },
    }


def code_state() -> dict[str, Any]:
    """Commit of the checkout this package runs from and whether it was changed; null for what is not known."""
    root = Path(__file__).resolve().parents[1]
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return {"commit": None, "dirty": None}
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def hardware(device: torch.device) -> dict[str, Any]:
    """Processor, memory, and the accelerator in use."""
    import torch

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
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10
        )
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
