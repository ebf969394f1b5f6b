"""Settings of a network that does what it is told, known to processes of their own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.profiling.apart import Apart
from bench.profiling.clock import Repeater
from bench.profiling.driver import Driver
from bench.profiling.instruments import Instruments
from bench.profiling.setting import Machine, Setting
from models import registry


@pytest.fixture(scope="session")
def moody_plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds `moody` as an installed distribution."""
    from moody import install

    folder = tmp_path_factory.mktemp("moody")
    install(folder)
    return folder


@pytest.fixture
def moody_known(moody_plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that a test starts know the network, as this one does."""
    paths = [str(moody_plugin), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


@pytest.fixture(scope="session")
def apart(moody_plugin: Path) -> Iterator[Apart]:
    """Processes that know the network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(moody_plugin), os.environ.get("PYTHONPATH")])))
        made = Apart()
    with made:
        yield made


@pytest.fixture
def moody_here() -> Iterator[None]:
    """This process knows the network for as long as a test takes."""
    from moody import make_known

    make_known()
    yield
    del registry._entries["moody"]


@pytest.fixture
def make_setting() -> Callable[..., Setting]:
    """A setting of `moody` on 8³ voxels; ``mood`` is its option, the rest are fields."""

    def make(mood: str = "good", **fields: Any) -> Setting:
        default = {
            **{"what": "network", "model": "moody", "model_options": {"mood": mood}, "image_size": (8, 8, 8)},
            **{"mode": "infer", "batch": 1, "in_channels": 4, "classes": 3, "precision": "fp32"},
            "asked_size": fields.get("image_size", (8, 8, 8)),
        }
        return Setting(**{**default, **fields})

    return make


@pytest.fixture
def machine() -> Machine:
    """An invented one."""
    return Machine("cpu", "a processor, 2 threads", torch.__version__, "torch", 2)


@pytest.fixture
def make_tools() -> Callable[..., Instruments]:
    """The instruments of this process, on the CPU or the GPU."""

    def make(device: str = "cpu", limit_s: float = 60.0, **fields: Any) -> Instruments:
        where, deadline = torch.device(device), time.monotonic() + limit_s
        driver = Driver(where)
        return Instruments(
            where, Repeater(where, deadline), driver, driver.used_bytes(), deadline, lambda _what: None, **fields
        )

    return make
