"""Loading weights that others trained, under the names their code gives them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

from models.errors import ModelError, PublishedWarning
from models.published import COMPUTED, Published
from models.registry import published

if TYPE_CHECKING:
    from torch import Tensor, nn

# Where training scripts put a state dict inside what they save, and what wrappers put before its names.
_WRAPPERS = ("state_dict", "model_state_dict", "network_weights", "module", "model")
_PREFIXES = (re.compile(r"^(?:(?:module|_orig_mod)\.)+"), re.compile(r"^(?:(?:module|_orig_mod|model)\.)+"))

_DEEPEST = 8  # how many wrappers may lie around a state dict
_SHOWN = 100


def load_published(model: nn.Module, state_dict: Mapping[str, Any]) -> None:
    """Load weights saved by the code of a network's authors, strictly: every tensor must find its place.

    Wrappers around the state dict (``state_dict``, ``module``, …) and prefixes that parallel or compiled modules add
    are taken off. Names of the network here are understood as well. Buffers that the network computes itself may be
    there or not. What a file cannot tell is said in a `PublishedWarning`.

    Args:
        model: from `models.create`, with the channels, size and options that the weights were made for.
        state_dict: names to tensors, or a checkpoint that holds such a mapping.

    Raises:
        ModelError: names are missing or surplus, or shapes differ: each is listed, by the authors' name, and of very
            many the first hundred. The model is then as it was.
    """
    import torch

    for wrapped in ("_orig_mod", "module"):  # by torch.compile, by data-parallel training
        inner = getattr(model, wrapped, None)
        model = inner if isinstance(inner, torch.nn.Module) else model
    if not hasattr(model, "registered_name"):
        raise ModelError(
            f"load_published: this {type(model).__name__} was not built by models.create, so the names in its "
            "authors' files are not known."
        )
    name = str(model.registered_name)
    ours = {key: tensor for key, tensor in model.state_dict().items() if not COMPUTED.search(key)}
    names, given = _understand(published(name), ours, _unwrap(name, state_dict))
    targets = {names.name(key): tensor for key, tensor in ours.items()}
    found = _by_plain_name(name, names, given)
    faults = _faults(targets, found, given)
    if faults:
        raise ModelError(
            f"{name}: these are not the weights of this network with its present channels, image size and options. "
            + " ".join(faults)
        )
    if names.caution:
        warnings.warn(f"{name}: {names.caution}", PublishedWarning, stacklevel=2)
    with torch.no_grad():
        for key, tensor in targets.items():
            tensor.copy_(found[key])


def _unwrap(name: str, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping of names to tensors inside a checkpoint."""
    from torch import Tensor

    content: Any = state_dict
    for _ in range(_DEEPEST):
        inner = [key for key in _WRAPPERS if isinstance(content, Mapping) and isinstance(content.get(key), Mapping)]
        if not inner:
            break
        content = content[inner[0]]
    if isinstance(content, Mapping) and any(isinstance(value, Tensor) for value in content.values()):
        return {str(key): value for key, value in content.items()}
    entries = ", ".join(map(repr, list(content)[:_SHOWN])) if isinstance(content, Mapping) else type(content).__name__
    raise ModelError(
        f"{name}: no state dict found; expected names with tensors, by themselves or under one of "
        f"{', '.join(_WRAPPERS)}; got {entries or 'nothing'}."
    )


def _understand(
    names: Published, ours: Mapping[str, Tensor], given: dict[str, Any]
) -> tuple[Published, dict[str, Any]]:
    """Whose names a file has, the authors' or ours, and the file without the prefixes of wrapped modules.

    Of all readings the one in which most names are known; as it stands, with the authors' names, where that is as good.
    """
    readings = [given]
    for prefixes in _PREFIXES:
        stripped = {prefixes.sub("", key): value for key, value in given.items()}
        if len(stripped) == len(given):  # else two names would become one
            readings.append(stripped)

    def known(choice: tuple[Published, dict[str, Any]]) -> int:
        naming, reading = choice
        return len({naming.name(key) for key in ours} & {naming.plain(key) for key in reading})

    return max(product((names, replace(names, rules=())), readings), key=known)


def _by_plain_name(name: str, names: Published, given: Mapping[str, Any]) -> dict[str, Any]:
    """The given tensors without repetitions and without what plays no part."""
    found: dict[str, Any] = {}
    differing = []
    for key, value in given.items():
        plain = names.plain(key)
        if names.plays_no_part(plain):
            continue
        if plain != key and plain in given:
            if not _equal(value, given[plain]):
                differing.append(key)
            continue
        found[plain] = value
    if differing:
        warnings.warn(
            f"{name}: {len(differing)} tensors differ from those that they should repeat and are passed over: "
            f"{_listed(differing, shown=3)}.",
            PublishedWarning,
            stacklevel=3,
        )
    return found


def _equal(one: Any, other: Any) -> bool:
    import torch

    if one is other:
        return True
    return isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor) and torch.equal(one, other)


def _faults(targets: Mapping[str, Tensor], found: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    missing = [key for key in targets if key not in found]
    surplus = [key for key in found if key not in targets]
    misshapen = []
    for key, target in targets.items():
        value = found.get(key, target)
        shape = tuple(getattr(value, "shape", ()))
        if not _is_plain(value):
            misshapen.append(f"{key} (no plain tensor of floating-point numbers, but {_kind(value)})")
        elif shape != tuple(target.shape):
            misshapen.append(f"{key} {shape} where {tuple(target.shape)} is expected")
    return [
        f"{what} ({len(keys)} of {total}): {_listed(keys)}."
        for what, keys, total in (
            ("Missing", missing, len(targets)),
            ("Surplus", surplus, len(given)),
            ("Misshapen", misshapen, len(targets)),
        )
        if keys
    ]


def _is_plain(value: Any) -> bool:
    import torch

    plain = isinstance(value, torch.Tensor) and value.layout is torch.strided and not value.is_meta
    return plain and value.is_floating_point()


def _kind(value: Any) -> str:
    if not hasattr(value, "dtype"):
        return type(value).__name__
    return f"{value.dtype}, {getattr(value, 'layout', '')}, on {getattr(value, 'device', '')}"


def _listed(keys: Sequence[str], shown: int = _SHOWN) -> str:
    more = f" and {len(keys) - shown} more" if len(keys) > shown else ""
    return ", ".join(keys[:shown]) + more
