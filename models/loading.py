"""Loading weights that others trained, under the names their code gives them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from models.errors import ModelError
from models.published import COMPUTED, Published
from models.registry import published

if TYPE_CHECKING:
    from torch import Tensor, nn

# Where training scripts put a state dict inside what they save, and what wrappers put before its names.
_WRAPPERS = ("state_dict", "model_state_dict", "network_weights", "module", "model")
_PREFIXES = ("module.", "_orig_mod.", "model.")

_SHOWN = 20


def load_published(model: nn.Module, state_dict: Mapping[str, Any]) -> None:
    """Load weights saved by the code of a network's authors, strictly: every tensor must find its place.

    Wrappers around the state dict (``state_dict``, ``module``, …) and prefixes that parallel or compiled modules add
    are taken off. Names of the network here are understood as well. Buffers that the network computes itself may be
    there or not.

    Args:
        model: from `models.create`, with the channels, size and options that the weights were made for.
        state_dict: names to tensors, or a checkpoint that holds such a mapping.

    Raises:
        ModelError: names are missing or surplus, or shapes differ: all are listed, by the authors' names. The model
            is then as it was.
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
    names = published(name)
    ours = {key: tensor for key, tensor in model.state_dict().items() if not COMPUTED.search(key)}
    given = _unwrap(name, state_dict)
    if given.keys() >= ours.keys():
        names = replace(names, rules=())  # saved by this package
    targets = {names.name(key): tensor for key, tensor in ours.items()}
    found = _by_plain_name(name, names, given)
    faults = _faults(targets, found, given)
    if faults:
        raise ModelError(
            f"{name}: these are not the weights of this network with its present channels, image size and options. "
            + " ".join(faults)
        )
    if names.caution:
        warnings.warn(f"{name}: {names.caution}", stacklevel=2)
    with torch.no_grad():
        for key, tensor in targets.items():
            tensor.copy_(found[key])


def _unwrap(name: str, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping of names to tensors inside a checkpoint, without the prefixes of wrapped modules."""
    from torch import Tensor

    content: Any = state_dict
    while isinstance(content, Mapping) and (inner := [k for k in _WRAPPERS if isinstance(content.get(k), Mapping)]):
        content = content[inner[0]]
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        entries = (
            ", ".join(map(repr, list(content)[:_SHOWN])) if isinstance(content, Mapping) else type(content).__name__
        )
        raise ModelError(
            f"{name}: no state dict found; expected names with tensors, by themselves or under one of "
            f"{', '.join(_WRAPPERS)}; got {entries or 'nothing'}."
        )
    given = {str(key): value for key, value in content.items()}
    stripped = True
    while stripped:
        stripped = False
        for prefix in _PREFIXES:
            if all(key.startswith(prefix) for key in given):
                given = {key.removeprefix(prefix): value for key, value in given.items()}
                stripped = True
    return given


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
        if not hasattr(value, "is_floating_point") or not value.is_floating_point():
            misshapen.append(f"{key} (no floating-point tensor, but {getattr(value, 'dtype', type(value).__name__)})")
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


def _listed(keys: Sequence[str], shown: int = _SHOWN) -> str:
    more = f" and {len(keys) - shown} more" if len(keys) > shown else ""
    return ", ".join(keys[:shown]) + more
