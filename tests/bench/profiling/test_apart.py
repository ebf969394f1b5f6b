"""Measurements in processes of their own: what comes back from good ones and from bad ones."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.profiling.apart import Apart
from bench.profiling.order import NEWS, STARTED, Answer, Order
from bench.profiling.setting import Setting

Make = Callable[..., Setting]


Ask = Callable[..., Answer]


@pytest.fixture
def ask(apart: Apart) -> Ask:
    """The answer to one order."""

    def carry_out(setting: Setting | None, limit_s: float = 60.0, device: str = "cpu") -> Answer:
        return apart.carry_out(Order(device, setting, limit_s)).answer

    return carry_out


def test_an_order_survives_its_way(make_setting: Make) -> None:
    order = Order("cpu", make_setting(more={"shape": [1, 2, 3]}), 5.0, 3, "trace", ("a", "b"))
    assert Order.from_json(order.to_json()) == order
    assert Order.from_json(Order("cuda:1", None, 5.0).to_json()) == Order("cuda:1", None, 5.0)


def test_a_measurement_comes_back_with_its_provenance(apart: Apart, make_setting: Make) -> None:
    heard: list[str] = []
    order = Order("cpu", make_setting("naps", cudnn_benchmark=False, backend="reference"), 60, command=("x", "y"))
    answer = apart.carry_out(order, heard.append).answer
    assert answer.status == "complete", answer.message
    assert answer.found["latency_s"] > 0.05
    assert answer.provenance["command"] == ["x", "y"]
    assert answer.provenance["settings"]["cudnn_benchmark"] is False
    assert answer.provenance["settings"]["selective_scan"] == "reference"
    assert any("repeat" in news for news in heard)


def test_a_machine_says_what_it_is(ask: Ask) -> None:
    found = ask(None).found
    assert found["device"] == "cpu"
    assert " thread" in found["hardware"]
    assert found["cores"] >= 1
    refused = ask(None, device="cuda:99")
    assert refused.status == "refused"
    assert "cuda:99" in refused.message


def test_out_of_memory_comes_back_with_what_it_had_reached(ask: Ask, make_setting: Make) -> None:
    answer = ask(make_setting("oom"))
    assert answer.status == "oom"
    assert "1.00 TiB" in answer.message
    assert answer.found["reached"] == "first pass"
    assert answer.found["memory"]["peak_process_bytes"] > 100 * 2**20


def test_a_process_that_the_system_kills_ran_out_of_memory(ask: Ask, make_setting: Make) -> None:
    answer = ask(make_setting("killed"))
    assert answer.status == "oom"
    assert "killed by the system" in answer.message


@pytest.mark.parametrize(
    ("mood", "told"), [("raises", "ZeroDivisionError: a bug in the network"), ("exits", "farewell")]
)
def test_a_fault_is_a_failed_measurement_and_says_why(ask: Ask, make_setting: Make, mood: str, told: str) -> None:
    answer = ask(make_setting(mood))
    assert answer.status == "failed"
    assert told in answer.message


def test_a_request_that_cannot_be_met_is_refused(ask: Ask, make_setting: Make) -> None:
    answer = ask(make_setting(image_size=(9, 9, 9)))
    assert answer.status == "refused"
    assert "9×9×9" in answer.message


def test_what_hangs_is_killed_when_its_time_is_over(
    ask: Ask, make_setting: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.profiling.apart._GRACE_S", 0.5)
    begun = time.monotonic()
    answer = ask(make_setting("hangs"), limit_s=2.0)
    assert answer.status == "timeout"
    assert "2 s" in answer.message
    assert time.monotonic() - begun < 15
    assert answer.found["memory"]["peak_process_bytes"] > 0


@pytest.mark.usefixtures("moody_known")
def test_each_order_is_a_process_of_its_own_and_none_is_left(make_setting: Make) -> None:
    heard: dict[int, str] = {}
    with Apart() as apart:
        folder = apart._folder
        for number, mood in enumerate(("killed", "good", "hangs")):
            answer = apart.carry_out(Order("cpu", make_setting(mood), 2.0 if mood == "hangs" else 60.0)).answer
            heard[number] = answer.status
        numbers = {int((folder / str(number) / STARTED).read_text()) for number in (1, 2, 3)}
    assert heard == {0: "oom", 1: "complete", 2: "timeout"}
    assert len(numbers) == 3
    assert not any(alive(number) for number in numbers)
    assert not folder.exists()


@pytest.mark.usefixtures("moody_known")
def test_a_measurement_ends_with_whoever_waits_for_it(make_setting: Make) -> None:
    order = Order("cpu", make_setting("hangs"), 60).to_json()
    program = (
        "import sys; from bench.profiling.apart import Apart; from bench.profiling.order import Order\n"
        "apart = Apart(); print(apart._folder, flush=True); apart.carry_out(Order.from_json(sys.argv[1]))"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, order], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    folder = Path(parent.stdout.readline().strip())
    until = time.monotonic() + 60
    while not (folder / "1" / NEWS).exists():
        assert time.monotonic() < until
        time.sleep(0.1)
    child = int((folder / "1" / STARTED).read_text())
    assert alive(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while alive(child) or folder.exists():
        assert time.monotonic() < until
        time.sleep(0.1)


def alive(pid: int) -> bool:
    """Whether a process does anything still."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
