"""How jobs are carried out."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class RunOptions:
    """How a job is carried out; nothing here changes its outcome but by rounding, so nothing here is part of its key.

    Attributes:
        device: where the network runs.
        gpus: devices that share each batch; on the CPU, processes.
        gpu_share: part of the device that the job may use, where others have the rest; times are then not those of a
            device alone.
        workers: threads that cut patches, for each device; 0 cuts them in the training thread.
        prepare_workers: cases prepared at the same time.
        save_predictions: keep the test cases' label maps.
        timeout_s: time after which the job ends, with its state saved; None for never.
        checkpoint_interval_s: seconds between two checkpoints.
    """

    device: torch.device
    gpus: int = 1
    gpu_share: float = 1.0
    workers: int = 0
    prepare_workers: int = 1
    save_predictions: bool = True
    timeout_s: float | None = None
    checkpoint_interval_s: float = 600.0
