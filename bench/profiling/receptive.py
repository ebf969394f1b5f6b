"""The effective receptive field: how far what a network says of one voxel depends on the voxels around it.

After Luo et al. 2016 (arXiv:1701.04128, section 2): the gradient of a central output with respect to the input, for
random inputs. They follow a single output; a segmentation has a logit per class, and what is averaged here is the
square of the gradient, summed over classes and image channels: its energy. SegMamba's paper says that its network
models the features of the whole volume (arXiv:2401.13560, abstract); where the energy lies tells how much it does.

A norm over the whole image (instance or group norm) makes every voxel count a little in any network, so that the share
of voxels that are seen at all tells little where there is one; that of voxels above a millionth of the largest energy,
and the radii, tell more.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import models
from bench.engine.checkpoint import load_checkpoint, load_weights
from bench.engine.network import count_channels
from bench.engine.precision import arithmetic
from bench.engine.predict import card_of, target_of
from bench.errors import BenchError
from bench.fields import Precision
from bench.profiling.instruments import Instruments
from bench.profiling.network import build
from bench.profiling.setting import Setting, Size
from bench.store import Record, Store

FILE = "receptive_field.npz"
INPUTS = 8
_SHARES = {"r50": 0.5, "r90": 0.9, "r99": 0.99}
_FAINT = 1e-6
# Powers of ten below the largest energy beyond which the file keeps no difference.
_DECADES = 12

Energy = NDArray[np.float64]


def measure_receptive_field(setting: Setting, tools: Instruments) -> dict[str, Any]:
    """Find how a network's energy spreads around the central voxel, and leave its central planes in a file.

    Of ``setting.more``: ``inputs``, over how many images of N(0, 1) it is averaged (`INPUTS`), and ``run``, the key
    of a record whose trained weights the network takes; those of seed 0 where it is empty. Input n is the same for
    every network. At the deadline it ends with the inputs that are done, one at least.

    Returns:
        What `spread` finds; ``parameters``; ``inputs`` that it is averaged over; ``spent_s``, seconds that these took.

    Raises:
        BenchError: fp16 is asked for; the run does not agree with the setting or has no weights; the network returns no
            logits.
        FloatingPointError: a gradient is not finite, or all are zero.
        DataError: the run's dataset is none that this version knows.
        ModelError: the network cannot be built so.
    """
    if setting.precision == "fp16":
        raise BenchError(
            "receptive field in fp16: gradients below 6e-8 become zero there, and far voxels would seem unseen; "
            "expected --precision bf16, tf32 or fp32"
        )
    record = _record(setting)
    network = build(setting, tools.device)
    if record is not None:
        load_weights(load_checkpoint(record.weights, tools.device), network, record.weights)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    network.eval().requires_grad_(False)
    layout = torch.channels_last_3d if setting.channels_last else torch.contiguous_format
    if setting.channels_last:
        network.to(memory_format=layout)
    forward: Any = torch.compile(network) if setting.compile else network
    wanted, done = int(setting.more.get("inputs", INPUTS)), 0
    total = torch.zeros(setting.image_size, dtype=torch.float64, device=tools.device)
    begun = time.monotonic()
    while done < wanted and (done == 0 or time.monotonic() <= tools.deadline):
        done += 1
        tools.on_pass(f"input {done} of {wanted}")
        image, signs = draw(done, setting.in_channels, setting.classes, setting.image_size)
        image = image.to(tools.device).contiguous(memory_format=layout)
        total += squared_gradient(forward, image, signs.to(tools.device), setting.precision)
    energy = (total / done).cpu().numpy()
    found = spread(energy)
    tools.files[FILE] = to_file(energy, found["radial"])
    return {**found, "parameters": parameters, "inputs": done, "spent_s": time.monotonic() - begun}


def draw(number: int, in_channels: int, classes: int, size: Size) -> tuple[Tensor, Tensor]:
    """Input ``number``: an image (1, in_channels, *size) of N(0, 1), and a sign, 1 or -1, for each class."""
    generator = torch.Generator().manual_seed(number)
    image = torch.randn(1, in_channels, *size, generator=generator)
    signs = 2.0 * torch.randint(0, 2, (classes,), generator=generator) - 1
    return image, signs


def squared_gradient(network: nn.Module, image: Tensor, signs: Tensor, precision: Precision) -> Tensor:
    """The energy of one image, from one backward pass: of the central voxel's logits, each with a sign, summed.

    With g_k the gradient of class k and independent signs s_k, E[(Σ s_k g_k)²] = Σ g_k², since the mixed terms have
    expectation zero: over random signs it is the sum over classes of each class's squared gradient.

    Args:
        network: in evaluation mode, on the image's device.
        image: (1, C, D, H, W); the central voxel is (D // 2, H // 2, W // 2).
        signs: (K,), 1 or -1.
        precision: of the passes, see `bench.engine.precision`.

    Returns:
        (D, H, W) in float64, summed over the channels of the image.

    Raises:
        BenchError: the network returns no logits (1, K, D, H, W), or they do not depend on the image.
        FloatingPointError: a gradient is not finite.
    """
    image = image.detach().requires_grad_()
    with arithmetic(precision, image.device):
        logits: Any = network(image)
    expected = (1, len(signs), *image.shape[2:])
    if not isinstance(logits, Tensor) or logits.shape != expected:
        found = f"a tensor {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise BenchError(f"the network returned {found} in evaluation; expected logits {expected}")
    if not logits.requires_grad:
        raise BenchError("no gradient leads from the network's logits to its image, so it has no receptive field")
    depth, height, width = _centre(image.shape[2:])
    score = (logits[0, :, depth, height, width].float() * signs).sum()
    # Autocast ends before the backward pass, which follows the types of the forward one.
    with arithmetic("tf32" if precision != "fp32" else "fp32", image.device):
        (gradient,) = torch.autograd.grad(score, image)
    # The squares of fp32 numbers may be too small for fp32.
    squared = gradient[0].double().square().sum(0)
    if not squared.isfinite().all():
        raise FloatingPointError("a gradient of the central logits is not finite, so they have no receptive field")
    return squared


def spread(energy: Energy) -> dict[str, Any]:
    """How an energy (D, H, W) lies around the central voxel (D // 2, H // 2, W // 2); lengths in voxels.

    Returns:
        ``radii``: ``r50``, ``r90``, ``r99``, the smallest Euclidean distances from the central voxel within which that
        share of the energy lies. ``radial``: the ``share`` within each whole ``radius`` up to the farthest corner.
        ``seen``: share of voxels with a gradient other than exactly zero, for any input. ``seen_1e6``: share of voxels
        with more than 10⁻⁶ of the largest energy. ``beyond_half``: share of the energy at Euclidean distances of more
        than a quarter of the shortest edge, that is beyond half of the way from the centre to the nearest face.
        ``axes``: offset of the energy's centroid from the central voxel along D, H and W. Where edges are even, the
        central voxel lies half a voxel behind the middle, and an even energy has offsets of -0.5.

    Raises:
        FloatingPointError: there is no energy.
    """
    total = float(energy.sum())
    if not total > 0:
        raise FloatingPointError("every gradient of the central logits is zero, so they have no receptive field")
    offsets = [np.arange(size) - middle for size, middle in zip(energy.shape, _centre(energy.shape), strict=True)]
    squared_distance = sum(np.square(offset) for offset in np.ix_(*offsets))
    # Squared distances are whole numbers: one bin each loses nothing.
    inside: Energy = np.cumsum(np.bincount(squared_distance.ravel(), weights=energy.ravel()))
    within = inside / inside[-1]
    farthest = len(within) - 1
    radii = np.arange(int(np.ceil(np.sqrt(farthest))) + 1)
    quarter = min(energy.shape) ** 2 // 16
    along = {name: energy.sum(tuple({0, 1, 2} - {axis})) for axis, name in enumerate("DHW")}
    return {
        "radii": {name: float(np.sqrt(np.searchsorted(within, share))) for name, share in _SHARES.items()},
        "radial": {"radius": radii.tolist(), "share": within[np.minimum(radii**2, farthest)].tolist()},
        "seen": float(np.mean(energy > 0)),
        "seen_1e6": float(np.mean(energy > _FAINT * energy.max())),
        "beyond_half": float(1 - within[min(quarter, farthest)]),
        "axes": {name: float(along[name] @ offset / total) for name, offset in zip("DHW", offsets, strict=True)},
    }


def to_file(energy: Energy, radial: Mapping[str, list[float]]) -> bytes:
    """The planes through the central voxel, and the radial curve, in NumPy's format.

    ``axial`` (H, W), ``coronal`` (D, W) and ``sagittal`` (D, H) hold the decimal logarithm of the energy as a share of
    the largest in the whole volume, -12 for all that is below, in float16; ``radius`` and ``share`` as in `spread`.
    """
    depth, height, width = _centre(energy.shape)
    planes = {"axial": energy[depth], "coronal": energy[:, height], "sagittal": energy[:, :, width]}
    content = io.BytesIO()
    np.savez_compressed(
        content,
        allow_pickle=False,
        radius=np.asarray(radial["radius"]),
        share=np.asarray(radial["share"]),
        **{name: _logarithm(plane / energy.max()) for name, plane in planes.items()},
    )
    return content.getvalue()


def _logarithm(share: Energy) -> NDArray[np.float16]:
    return np.log10(np.maximum(share, 10.0**-_DECADES)).astype(np.float16)


def _centre(size: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(edge // 2 for edge in size)


def _record(setting: Setting) -> Record | None:
    """The record whose weights are meant, which must be of the setting's network; None where none is."""
    folder = setting.weights_from
    if not folder:
        return None
    record = Store().find(folder)
    if record.kind != "run" or record.status != "complete":
        faults = "".join(f"\n{fault}" for fault in record.faults)
        raise BenchError(
            f"{record.folder} is {record.status}, of the kind {record.kind or 'unknown'}; expected a complete run with "
            f"its weights.{faults}"
        )
    job = record.content["job"]
    card = card_of(record)
    model = setting.model
    facts: dict[str, tuple[Any, Any]] = {
        "model": (job["model"], model),
        "channels": (len(card.channels), setting.in_channels),
        "classes": (count_channels(card, target_of(record)), setting.classes),
        "patch (D, H, W)": (tuple(job["protocol"]["data"]["patch_size"]), setting.image_size),
    }
    if job["model"] == model:
        trained = models.resolve_options(model, job["model_options"])
        facts["options"] = (trained, models.resolve_options(model, setting.model_options))
    for name, (in_record, asked) in facts.items():
        if in_record != asked:
            raise BenchError(
                f"{record.folder} has the {name} {in_record}, and its receptive field was asked for with {asked}; "
                "name the run alone, which says what network and patch it is"
            )
    return record
