"""How a training step is carried out on the device at hand: what may differ between machines and changes no result
but by rounding."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Execution:
    """What was chosen for one training; it stands in the record.

    Attributes:
        micro_batch: patches that pass through the network at once, on each device; gradients are accumulated to the
            protocol's batch.
        recomputed_blocks: parts of the network that compute their activations again in the backward pass; 0 for none.
        channels_last: whether tensors are laid out with channels last.
        compile: whether the network is compiled.
        fused: whether layers run as fused kernels, see `models.fusion`.
        graph: whether the passes are replayed as a CUDA graph.
        unused_parameters: parameters to which a training step gives no gradient.
        step_memory_bytes: most that tensors take in a step, as measured where ``train.memory_gib`` asks for a fit;
            else 0.
        notes: what was asked for and could not be done, and why.
    """

    micro_batch: int
    recomputed_blocks: int = 0
    channels_last: bool = False
    compile: bool = False
    fused: bool = False
    graph: bool = False
    unused_parameters: int = 0
    step_memory_bytes: int = 0
    notes: tuple[str, ...] = ()
