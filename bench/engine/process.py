"""``python -m bench.engine.process FOLDER``: carries out the order in that folder, and leaves its answer there.

Whoever started it keeps its standard input open. The end of it means that nobody waits any more: the job then saves
its state and stops, so that nothing trains on unseen. One SIGINT asks for the same, a second ends it at once.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import data
from bench.engine.interrupt import Interrupted, StopRequest, TimedOut, stop_on_signal
from bench.engine.order import ANSWER, ORDER, Answer, Order
from bench.engine.preparation import prepare_job
from bench.errors import BenchError
from bench.lease import Held
from bench.live import RecordWatcher
from bench.progress import ConsoleWatcher
from bench.store import Store
from data.dataset import Dataset
from data.errors import DataError
from data.fingerprint import fingerprint
from models.errors import ModelError

# What a training, its checkpoint and a validation case may take to end when nobody waits for them.
_GRACE_S = 60.0


def main() -> None:
    """Carry the order out."""
    # Ray keeps Ctrl-C away from its processes, and their children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    folder, alone = Path(sys.argv[1]), threading.Event()
    with stop_on_signal() as stop:
        # Not before somebody hears what came in the meantime.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
        threading.Thread(target=_follow, args=(sys.stdin.fileno(), stop, alone), name="lifeline", daemon=True).start()
        order: Order = pickle.loads((folder / ORDER).read_bytes())
        answer = _carry_out(order, stop)
    if alone.is_set():  # nobody is left to read an answer, or to tidy up
        shutil.rmtree(folder, ignore_errors=True)
        return
    draft = folder / f".{ANSWER}"
    draft.write_text(json.dumps(asdict(answer)))
    draft.replace(folder / ANSWER)


def _carry_out(order: Order, stop: StopRequest) -> Answer:
    os.environ.update(order.environment)
    sys.argv = [*order.command] or sys.argv
    try:
        dataset = data.open_folder(order.card, order.root)
        found = fingerprint(dataset.cases())
        if found != order.job.data_fingerprint:
            raise BenchError(
                f"the files in {order.root} on this machine hash to {found[:12]}; those that were planned with to "
                f"{order.job.data_fingerprint[:12]}. Every machine must see the same files under that path"
            )
        if order.kind == "prepare":
            console = ConsoleWatcher()
            watcher = console if order.watched is None else RecordWatcher(order.watched, console)
            prepare_job(order.job, dataset, order.prepare_workers, watcher, stop)
        else:
            _run(order, dataset, stop)
    except Held as reason:
        return Answer("held", str(reason))
    except (BenchError, DataError, ModelError) as error:
        return Answer("refused", str(error))
    except (Interrupted, TimedOut):  # of a preparation, which a job's record would tell
        return Answer("refused", "stopped on request")
    return Answer("done")


def _run(order: Order, dataset: Dataset, stop: StopRequest) -> None:
    # Only here, since they take seconds that a preparation need not wait for.
    import torch

    from bench.engine.device import choose_device
    from bench.engine.memory import share_device
    from bench.engine.options import RunOptions
    from bench.engine.run import run_job

    device = choose_device(order.device)
    share_device(device, order.gpu_share)
    if order.gpus > 1 and device.type == "cuda" and torch.cuda.device_count() < order.gpus:
        raise BenchError(
            f"{order.gpus} GPUs are wanted, this process sees {torch.cuda.device_count()}: CUDA_VISIBLE_DEVICES is "
            f"{os.environ.get('CUDA_VISIBLE_DEVICES')!r}"
        )
    options = RunOptions(
        device=device,
        gpus=order.gpus,
        gpu_share=order.gpu_share,
        workers=order.workers,
        prepare_workers=order.prepare_workers,
        save_predictions=order.save_predictions,
        timeout_s=order.timeout_s,
        checkpoint_interval_s=order.checkpoint_interval_s,
    )
    run_job(order.job, dataset, Store(order.results), options, ConsoleWatcher(), stop, since=order.since)


def _follow(lifeline: int, stop: StopRequest, alone: threading.Event) -> None:
    """Wait for the end of the input, then for the end of the job, not for ever."""
    while os.read(lifeline, 1):  # unbuffered: the interpreter's end would wait for a buffer's lock
        pass
    alone.set()
    if not stop.requested:
        os.killpg(os.getpgrp(), signal.SIGINT)  # the processes of a job on several devices are of this group
    time.sleep(_GRACE_S)
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main()
