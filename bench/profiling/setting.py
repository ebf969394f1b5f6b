"""What is measured: one network, or one of its parts, at one size, in one way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from bench.fields import Precision

What = Literal["network", "mixer", "scan", "volume", "receptive-field", "ceiling"]
Mode = Literal["infer", "train"]
WHATS: tuple[str, ...] = get_args(What)
# Parts of networks, whose size is the number of tokens and which come in several widths.
OF_TOKENS: tuple[What, ...] = ("mixer", "scan")
PRECISIONS: tuple[str, ...] = get_args(Precision)
# What one pass of each mode is called in a record.
PASS_TIME = {"infer": "latency_s", "train": "train_step_s"}

Size = tuple[int, int, int]


@dataclass(frozen=True)
class Machine:
    """What measures.

    Attributes:
        device: ``cpu`` or ``cuda:N``.
        hardware: the processor with the number of threads, or the GPU: times on another are another record's.
        torch: version of PyTorch, which names its CUDA build.
        backend: of the selective scan, where none is asked for.
        cores: of the processor.
        obstacles: why backends of the selective scan cannot run there, by name, without those that can.
    """

    device: str
    hardware: str
    torch: str
    backend: str
    cores: int
    obstacles: Mapping[str, str] = field(default_factory=dict)

    @property
    def on_gpu(self) -> bool:
        """Whether it is a GPU that measures."""
        return self.device.startswith("cuda")


@dataclass(frozen=True)
class Setting:
    """One measurement.

    Attributes:
        what: one of `WHATS`.
        model: registered name of a network; for ``mixer`` a name of `bench.profiling.mixers.MIXERS`; for ``scan`` a
            name of `bench.profiling.scans.SCANS`.
        model_options: all with which it is built.
        image_size: (D, H, W) in voxels of what goes in.
        mode: a pass without gradients, or a training step.
        batch: how many go in at once.
        in_channels, classes: channels that go in, and logits per voxel that come out.
        precision: of the passes, see `bench.engine.precision`.
        compile: whether torch.compile compiles it.
        fused: whether layers run as fused kernels, see `models.fusion`.
        graph: whether passes are replayed as a CUDA graph.
        channels_last: whether tensors are laid out with channels last.
        cudnn_benchmark: whether cuDNN tries its algorithms and keeps the fastest.
        backend: of the selective scan; empty for the one that the device's tensors get.
        asked_size: what was asked for where the network does not take that size; else the same as ``image_size``.
        more: what else a kind of measurement depends on, e.g. the shape of the volume.
        called: what people call it, where that is not ``model``.
        weights_from: folder of the record whose trained weights it takes; ``more`` names the record by its key.
    """

    what: What
    model: str
    model_options: Mapping[str, Any]
    image_size: Size
    mode: Mode
    batch: int
    in_channels: int
    classes: int
    precision: Precision
    compile: bool = False
    channels_last: bool = False
    fused: bool = False
    graph: bool = False
    cudnn_benchmark: bool = True
    backend: str = ""
    asked_size: Size = (0, 0, 0)
    more: Mapping[str, Any] = field(default_factory=dict)
    called: str = ""
    weights_from: str = ""

    def job(self, machine: Machine) -> dict[str, Any]:
        """The canonical form: everything that the figures depend on, and nothing else."""
        return {
            "what": self.what,
            "model": self.model,
            "model_options": dict(self.model_options),
            "image_size": list(self.image_size),
            "mode": self.mode,
            "batch": self.batch,
            "in_channels": self.in_channels,
            "classes": self.classes,
            "precision": self.precision,
            "compile": self.compile,
            "channels_last": self.channels_last,
            "cudnn_benchmark": self.cudnn_benchmark,
            "backend": self.backend or machine.backend,
            "hardware": machine.hardware,
            "torch": machine.torch,
            # They came when there were records already, whose keys stay as they are.
            **{name: True for name in ("fused", "graph") if getattr(self, name)},
            **self.more,
        }

    @property
    def title(self) -> str:
        """For people, e.g. ``segmamba 64³ train``."""
        channels = f" {self.in_channels} channels" if self.what in OF_TOKENS else ""
        return f"{self.model}{channels} {size_text(self.image_size)} {self.mode}"


def size_text(size: tuple[int, ...]) -> str:
    """``64³`` for cubes, else ``64×64×96`` (D×H×W)."""
    return f"{size[0]}³" if len(set(size)) == 1 else "×".join(map(str, size))
