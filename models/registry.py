"""Where networks are registered, listed and built.

A network is a builder function decorated with its card; the two are the whole interface:

    @register(ModelCard(name="mynet", ...))
    def mynet(in_channels: int, out_channels: int, image_size: tuple[int, int, int], *, width: int = 32):
        from mynet.network import MyNet  # here and not above, so that listing networks stays light

        return MyNet(in_channels, out_channels, width)

The keyword-only parameters are the options; their defaults give the options' types. The built module
takes images (B, in_channels, D, H, W) and returns logits (B, out_channels, D, H, W).

An installed distribution adds a network with an entry point of the group `segmamba_bench.models` that
names the decorated builder.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from models.card import ModelCard
from models.errors import ModelError
from models.published import Published
from models.request import check_channels, check_options, is_option_default, unknown
from models.size import Size, SizeGuard, check_size
from models.size import nearest_size as nearest_of_card

if TYPE_CHECKING:
    from torch import nn

ENTRY_POINT_GROUP = "segmamba_bench.models"

Builder = TypeVar("Builder", bound=Callable[..., "nn.Module"])


@dataclass(frozen=True)
class _Entry:
    card: ModelCard
    builder: Callable[..., nn.Module]
    options: dict[str, object]
    published: Published


_entries: dict[str, _Entry] = {}
_entry_points_loaded = False


def register(card: ModelCard, published: Published | None = None) -> Callable[[Builder], Builder]:
    """Decorate a builder function with its card, which makes the network known under `card.name`.

    Args:
        card: the facts about the network.
        published: how its authors' files name its parameters; by default as the network itself does.

    Raises:
        ModelError: the name is taken by another builder, an option has no default that gives a type, or the card's
            rule for sizes is none.
    """

    def decorate(builder: Builder) -> Builder:
        if min(*card.size_multiples, card.minimum_size) < 1:
            raise ModelError(
                f"{card.name}: the card's size_multiple and minimum_size must be at least 1, in voxels; got "
                f"{card.size_multiple} and {card.minimum_size}."
            )
        known = _entries.get(card.name)
        if known is not None and _where(known.builder) != _where(builder):  # a reloaded module may come again
            raise ModelError(
                f"The name {card.name!r} is taken by {_where(known.builder)}; give the network of "
                f"{_where(builder)} another name."
            )
        _entries[card.name] = _Entry(card, builder, _read_options(card.name, builder), published or Published())
        return builder

    return decorate


def create(
    name: str, *, in_channels: int, out_channels: int, image_size: int | Sequence[int], **options: object
) -> nn.Module:
    """Build a network with freshly initialised parameters.

    Args:
        name: one of `names()`.
        in_channels: number of image channels.
        out_channels: number of logits per voxel.
        image_size: extent of the images in voxels: one integer for cubes, or three (D, H, W).
        options: the network's own options, see `options(name)`.

    Returns:
        A module from images (B, in_channels, D, H, W) to logits (B, out_channels, D, H, W).

    Raises:
        ModelError: the name, a number of channels, the size or an option does not fit the network.
    """
    entry = _entry(name)
    check_channels(name, in_channels, out_channels)
    resolved = check_options(name, entry.options, options)
    size = check_size(entry.card, image_size, resolved)
    try:
        network = entry.builder(in_channels, out_channels, size, **resolved)
    except (MemoryError, RuntimeError) as error:
        if "memory" not in str(error):
            raise
        told = ", ".join(f"{option}={value!r}" for option, value in resolved.items())
        raise ModelError(f"{name}: there is not enough memory for a network with {told}.") from error
    if entry.card.fixed_size:
        network.register_forward_pre_hook(SizeGuard(name, size))
    cast(Any, network).registered_name = name  # by which `load_published` knows the names in its authors' files
    return network


def nearest_size(name: str, image_size: int | Sequence[int], options: Mapping[str, object]) -> Size:
    """The size that the network `name` takes nearest to the given one, see `models.size.nearest_size`.

    Args:
        name: one of `names()`.
        image_size: in voxels: one integer for cubes, or three (D, H, W).
        options: the network's own options, of which the others have their defaults.

    Raises:
        ModelError: there is no such network or option, or it is no size.
    """
    return nearest_of_card(card(name), image_size, resolve_options(name, options))


def published(name: str) -> Published:
    """How the authors of the network `name` call its parameters. Raises ModelError if there is no such network."""
    return _entry(name).published


def names() -> list[str]:
    """The names of all networks, sorted."""
    _load_entry_points()
    return sorted(_entries)


def card(name: str) -> ModelCard:
    """The card of the network `name`. Raises ModelError if there is none."""
    return _entry(name).card


def options(name: str) -> dict[str, object]:
    """The options of the network `name` with their defaults. Raises ModelError if there is no such network."""
    return dict(_entry(name).options)


def resolve_options(name: str, given: Mapping[str, object]) -> dict[str, object]:
    """All options of the network `name`: the given ones, checked, and the defaults of the others.

    Raises:
        ModelError: there is no such network or option, or a value is of another type than its default.
    """
    return check_options(name, _entry(name).options, given)


def _entry(name: str) -> _Entry:
    if name not in _entries and name not in (known := names()):
        raise unknown("Network", name, known, f"There are: {', '.join(known)}.")
    return _entries[name]


def _load_entry_points() -> None:
    """Import, once, what other distributions register; one that fails is warned of and passed over."""
    global _entry_points_loaded
    if _entry_points_loaded:
        return
    _entry_points_loaded = True  # before they load, since one may ask for names itself
    from importlib.metadata import entry_points

    for point in entry_points(group=ENTRY_POINT_GROUP):
        owner = point.dist.name if point.dist else "unknown"
        try:
            loaded = point.load()
        except Exception as error:
            reason = f"cannot be loaded: {type(error).__name__}: {error}"
        else:
            if any(entry.builder is loaded for entry in _entries.values()):
                continue
            reason = "is not a builder decorated with models.register"
        warnings.warn(
            f"The network {point.name!r} of the distribution {owner!r} is left out; mend, update or uninstall "
            f"{owner!r}: its entry point {point.value!r} {reason}",
            stacklevel=2,
        )


def _read_options(name: str, builder: Callable[..., nn.Module]) -> dict[str, object]:
    parameters = inspect.signature(builder).parameters.values()
    found = {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    for option, default in found.items():
        if not is_option_default(default):
            raise ModelError(
                f"{name}: option {option} of {_where(builder)} needs a default that is a bool, int, float, "
                "str or a non-empty tuple of one of these: the default gives the option's type."
            )
    return found


def _where(builder: Callable[..., nn.Module]) -> str:
    return f"{builder.__module__}.{builder.__qualname__}"
