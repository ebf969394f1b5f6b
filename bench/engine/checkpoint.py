"""Checkpoints: the whole state of a training, atomic on the disk."""

from __future__ import annotations

import errno
import io
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.atomic import atomic_file
from bench.engine.memory import is_out_of_memory
from bench.errors import BenchError

# A truncated file gives other errors of the system.
_REFUSALS = (errno.EIO, errno.EACCES, errno.EPERM, errno.ESTALE, errno.ENOTCONN)
# What a checkpoint of ours holds.
_PARTS = frozenset({"model", "optimiser", "scaler", "progress", "random"})


class Unreadable(BenchError):
    """A file that the system does not give, whatever is in it."""


@dataclass
class TrainingState:
    """What a training needs to go on as if it had never stopped.

    Attributes:
        step: optimiser steps done.
        history: one row per finished epoch; a validation that did not take place in it is None.
        pending: loss, seconds of computing and seconds of waiting for data of each step since the last row.
        seconds: time spent on steps so far, over all attempts; without validations and checkpoints.
        device_seconds: the same, times the devices of each attempt.
        best_dice: best mean Dice on the validation cases; None before the first validation.
        best_step: when that was.
        execution: how the steps are carried out, see `bench.engine.execution.Execution`.
    """

    step: int = 0
    history: list[dict[str, float | None]] = field(default_factory=list)
    pending: list[tuple[float, float, float]] = field(default_factory=list)
    seconds: float = 0.0
    device_seconds: float = 0.0
    best_dice: float | None = None
    best_step: int | None = None
    execution: dict[str, Any] | None = None


def save_checkpoint(
    path: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    state: TrainingState,
    randoms: Sequence[Mapping[str, Tensor | None]],
) -> None:
    """Write weights, optimiser, loss scale, progress and random states.

    Args:
        randoms: `random_state` of each process that trains, in order of the ranks.

    Raises:
        BenchError: the disk refuses; an earlier checkpoint at ``path`` is unchanged.
    """
    content = {
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "scaler": scaler.state_dict(),
        "progress": asdict(state),
        "random": list(randoms),
    }
    # Through memory, since torch's writer turns a full disk into an error that does not say so.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_file(path) as file:
        file.write(buffer.getbuffer())


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a checkpoint. It never runs code from the file (``weights_only``).

    Raises:
        BenchError: the file is missing, truncated, or no checkpoint.
    """
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise BenchError(f"there are no weights at {path}; a published record may come without them.") from error
    except Exception as error:  # what damaged bytes can raise in an unpickler is no closed list
        if is_out_of_memory(error):
            raise  # the file may be whole, and here too
        if isinstance(error, OSError) and error.errno in _REFUSALS:
            raise Unreadable(f"cannot read {path}: {error.strerror}. Check the disk and its permissions.") from error
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise BenchError(f"{path} is damaged: {reason}.") from error
    if not isinstance(content, dict) or not content.keys() >= _PARTS:
        raise BenchError(f"{path} is damaged: it is no checkpoint of a training.")
    return content


def load_foreign_weights(path: Path) -> Mapping[str, Any]:
    """Read what somebody else's code saved, on the CPU. It never runs code from the file (``weights_only``).

    Raises:
        BenchError: the file is missing or damaged, or holds more than tensors and plain values.
    """
    try:
        with torch.serialization.safe_globals(_numpy_numbers()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise BenchError(f"--weights: there is no file {path}.") from error
    except IsADirectoryError as error:
        raise BenchError(f"--weights {path} is a folder; expected a file. A run's folder is given as RUN.") from error
    except Exception as error:  # as above
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if not found or not _begins_like_a_checkpoint(path):
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise BenchError(
                f"--weights {path} cannot be read ({reason}): it is damaged, or no file that torch.save wrote."
            ) from error
        raise BenchError(
            f"--weights {path} holds more than tensors and plain values: {found[1]}. Reading that would run code from "
            "the file, so it is not read. If you trust where it comes from, save its state dict alone and give "
            "that: with whole = torch.load(FILE, weights_only=False), torch.save(whole.state_dict(), NEW_FILE) for a "
            "network, "
            'torch.save(whole["state_dict"], NEW_FILE) for a checkpoint.'
        ) from error
    if isinstance(content, Mapping) and content.keys() >= _PARTS:
        raise BenchError(
            f"--weights {path} is a checkpoint of this package; expected a file that other code saved. Give its run "
            f"instead: bench predict {path.resolve().parent.parent} INPUT OUTPUT"
        )
    if not isinstance(content, Mapping):
        raise BenchError(
            f"--weights {path} holds a {type(content).__name__}; expected a state dict, or a checkpoint with one in it."
        )
    return content


def _begins_like_a_checkpoint(path: Path) -> bool:
    """Whether a file begins as a zip archive or a pickle does, in which torch saves."""
    with path.open("rb") as file:
        return file.read(2) in (b"PK", *(b"\x80" + bytes([version]) for version in range(2, 6)))


def _numpy_numbers() -> list[Any]:
    """What reading numpy's numbers takes, which nnU-Net and others keep beside their weights; none of it runs code."""
    scalar = np.float64(0).__reduce__()[0]
    kinds = {type(np.dtype(code)) for code in ("?", "i4", "i8", "u1", "f2", "f4", "f8")}
    return [np.dtype, *kinds, *((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core"))]


def load_weights(content: dict[str, Any], model: nn.Module, path: Path) -> None:
    """Put a checkpoint's weights into a model.

    Raises:
        BenchError: they are those of another network; the model is as it was.
    """
    found = {name: tuple(tensor.shape) for name, tensor in content["model"].items()}
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if found != expected:
        differing = sorted(name for name in found.keys() | expected if found.get(name) != expected.get(name))
        raise BenchError(
            f"{path} holds the weights of another network: {len(differing)} of {len(expected)} parameters differ in "
            f"name or shape, the first: {differing[0]}."
        )
    model.load_state_dict(content["model"])


def restore(
    content: dict[str, Any],
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    path: Path,
    rank: int = 0,
) -> TrainingState:
    """Put a checkpoint's state into model, optimiser, scaler and random generators.

    Raises:
        BenchError: as `load_weights`.
    """
    load_weights(content, model, path)
    optimiser.load_state_dict(content["optimiser"])
    if content["scaler"]:
        scaler.load_state_dict(content["scaler"])
    if rank < len(content["random"]):  # more processes than before: the new ones keep the streams they were seeded with
        random_state = content["random"][rank]
        torch.set_rng_state(random_state["torch"].cpu())
        if random_state["cuda"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(random_state["cuda"].cpu())
    return TrainingState(**content["progress"])


def random_state() -> dict[str, Tensor | None]:
    """The states of this process's generators that a training draws from."""
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }


def seed_everything(seed: int) -> None:
    """Seed every generator that a network may draw from while it is built."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - third-party networks may draw from the global generator
    torch.manual_seed(seed)
