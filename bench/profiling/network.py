"""What a whole network costs: time, memory, energy and operations of an inference or of a training step."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

import models
from bench.engine.checkpoint import seed_everything
from bench.engine.execution import Execution
from bench.engine.graph import Replayed
from bench.engine.live_memory import peak_tensor_bytes
from bench.engine.memory import peak, reset_peak
from bench.engine.precision import arithmetic
from bench.engine.step import Step
from bench.profiling.clock import LONG_S, WARM_UP_S, Mark, Work, ignore
from bench.profiling.instruments import Instruments
from bench.profiling.operations import count_operations
from bench.profiling.operators import top_operators
from bench.profiling.setting import PASS_TIME, Setting
from bench.protocol import load_protocol
from data.sampling import Batch

# The training step is that of the paper's protocol: cross entropy and SGD.
PROTOCOL = "paper"


def build(setting: Setting, device: torch.device) -> nn.Module:
    """The network of a setting, on the device, its weights those of seed 0.

    Raises:
        ModelError: as `models.create`.
    """
    seed_everything(0)
    network = models.create(
        setting.model,
        in_channels=setting.in_channels,
        out_channels=setting.classes,
        image_size=setting.image_size,
        **setting.model_options,
    )
    return network.to(device)


def measure_network(setting: Setting, tools: Instruments) -> dict[str, Any]:
    """Count, then time and weigh the passes of one network.

    Raises:
        ModelError: the network cannot be built so.
        BenchError: it returns no logits.
    """
    network = build(setting, tools.device)
    facts = count(network, setting)
    make = infer_work if setting.mode == "infer" else train_work
    work = make(network, setting, tools.device)
    found = measure(work, tools, lambda: owned_bytes(network, work))
    voxels = setting.batch * setting.image_size[0] * setting.image_size[1] * setting.image_size[2]
    seconds = found["time"]["median_s"]
    found |= {PASS_TIME[setting.mode]: seconds, "voxels_per_s": voxels / seconds}
    if tools.operators or tools.trace is not None:
        tools.on_pass("operators")
        found["operators"] = top_operators(work, tools.device, tools.operators, tools.trace)
    return {**facts, **found}


def count(network: nn.Module, setting: Setting) -> dict[str, Any]:
    """Parameters, and multiply-accumulates of one inference of one image (10⁹), with what nobody can count by name."""
    operations = count_operations(network, setting.in_channels, setting.image_size)
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "gmacs": operations.total / 1e9,
        "operations": asdict(operations),
    }


class Pass:
    """A pass of a network, and the tensors that it starts from."""

    def __init__(self, run: Work, starts_from: Callable[[], Iterator[Tensor]]) -> None:
        self._run = run
        self.starts_from = starts_from

    def __call__(self, mark: Mark) -> object:
        return self._run(mark)


def infer_work(network: nn.Module, setting: Setting, device: torch.device) -> Pass:
    """A pass without gradients in evaluation mode, the image on the device."""
    network.eval()
    image = _image(setting, device)
    if setting.channels_last:
        network.to(memory_format=torch.channels_last_3d)
    if setting.fused:
        from models.fusion import fuse

        fuse(network)
    forward: Any = torch.compile(network) if setting.compile else network

    @torch.no_grad()
    def infer(one: Tensor) -> Tensor:
        with arithmetic(setting.precision, device):
            logits: Tensor = forward(one)
        return logits

    replayed = Replayed(infer) if setting.graph else infer

    def run(_mark: Mark) -> object:
        return replayed(image)

    def starts_from() -> Iterator[Tensor]:
        yield image

    return Pass(run, starts_from)


def train_work(network: nn.Module, setting: Setting, device: torch.device) -> Pass:
    """The engine's own training step under the paper's protocol: forward with the loss, backward, optimiser."""
    network.train()
    fields = load_protocol(PROTOCOL).train.model_copy(update={"precision": setting.precision})
    execution = Execution(
        setting.batch,
        channels_last=setting.channels_last,
        compile=setting.compile,
        fused=setting.fused,
        graph=setting.graph,
    )
    step = Step(network, fields, execution, device)
    label = torch.randint(0, setting.classes, (setting.batch, *setting.image_size), device=device)
    batch = Batch(_image(setting, device), label)

    def run(mark: Mark) -> object:
        step.on_phase = mark
        return step(batch, fields.learning_rate)

    def starts_from() -> Iterator[Tensor]:
        yield batch.image
        yield batch.label
        for state in step.optimiser.state.values():
            yield from (value for value in state.values() if isinstance(value, Tensor))

    return Pass(run, starts_from)


def measure(
    work: Work, tools: Instruments, owned: Callable[[], int], *, many: bool = False, burst: int = 1
) -> dict[str, Any]:
    """Time a pass by the repeater's rule; then its memory and, where the driver tells it, its energy.

    Args:
        work: one pass.
        tools: of this process.
        owned: bytes of tensors that are there between passes, which a CPU's passes are not charged with otherwise.
        many: whether the work consists of many passes of a network, the first of which warm the others up.
        burst: as for `Repeater.repeat`.

    Returns:
        ``peak_memory_bytes`` is what tensors took; None on a CPU where there was no time to follow them.
    """
    device, repeater, driver = tools.device, tools.repeater, tools.driver
    timing = repeater.first(work)
    on_gpu, allocated = device.type == "cuda", None
    warm = many or timing.first_s > LONG_S
    if on_gpu:
        if not warm:
            repeater.warm_up(work)
        torch.cuda.empty_cache()  # the choice of kernels tried some that need more memory
        if not warm:
            work(ignore)
    else:
        if time.monotonic() + 3 * timing.first_s < tools.deadline:
            gc.collect()
            tools.on_pass("memory")
            with peak_tensor_bytes(device) as peak_bytes:
                work(ignore)
            allocated = owned() + peak_bytes()
        if not warm and timing.first_s < WARM_UP_S:  # the pass above has warmed slower ones up
            repeater.warm_up(work)
    reset_peak(device)
    energy = driver.energy_j()
    repeater.repeat(work, timing, burst)
    used = driver.energy_j()
    memory = peak(device)
    if on_gpu:
        now = driver.used_bytes()
        if now is not None and tools.used_before is not None:
            memory["driver_bytes"] = now - tools.used_before
        allocated = memory["peak_allocated_bytes"]
    elif allocated is not None:
        memory["peak_allocated_bytes"] = allocated
    energy_j = None if energy is None or used is None else (used - energy) / (burst * len(timing.repeats_s))
    return {
        "time": timing.to_dict(),
        "memory": memory,
        "peak_memory_bytes": allocated,
        "energy_j": energy_j,
    }


def owned_bytes(network: nn.Module, work: Pass) -> int:
    """Bytes of the tensors that live from pass to pass: weights, what the optimiser keeps, the batch."""
    kept = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in (*network.parameters(), *network.buffers(), *work.starts_from())
    }
    return sum(kept.values())


def _image(setting: Setting, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(setting.batch, setting.in_channels, *setting.image_size, generator=generator).to(device)
    return image.contiguous(memory_format=torch.channels_last_3d) if setting.channels_last else image
