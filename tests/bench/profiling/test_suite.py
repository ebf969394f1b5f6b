"""Many measurements: what is kept, what is measured again, what ends them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.errors import BenchError
from bench.profiling.apart import Apart, Outcome
from bench.profiling.order import Answer, Order
from bench.profiling.setting import Machine, Setting
from bench.profiling.suite import Conduct, ask_machine, measure_all
from bench.progress import SilentWatcher
from bench.store import Store, describe

Make = Callable[..., Setting]
CODE = {"commit": "0123456789abcdef", "dirty": False}


class Scripted:
    """Answers without measuring, and remembers what it was asked; ``code`` is the state of the checkout."""

    code: Mapping[str, Any] = CODE

    def __init__(self, *answers: Answer) -> None:
        self.orders: list[Order] = []
        self._answers = list(answers)

    def carry_out(self, order: Order, _on_news: object = None) -> Outcome:
        self.orders.append(order)
        if self._answers:
            return Outcome(self._answers.pop(0), {})
        found = {"latency_s": float(len(self.orders)), "operators": [{}] * order.operators}
        return Outcome(Answer("complete", found=found, provenance={"code": dict(self.code)}), {"more.npz": b"numbers"})


@pytest.fixture(autouse=True)
def clean_code(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The checkout's state, which a test may change."""
    state = dict(CODE)
    monkeypatch.setattr("bench.profiling.suite.software", lambda: {"code": state, "packages": {}})
    monkeypatch.setattr(Scripted, "code", state)
    return state


def measure(store: Store, machine: Machine, apart: Any, *settings: Setting, **conduct: Any) -> list[Any]:
    return measure_all(settings, store, machine, Conduct("cpu", 60.0, **conduct), apart, SilentWatcher())


def test_a_real_measurement_becomes_a_record(make_setting: Make, apart: Apart, tmp_path: Path) -> None:
    machine = ask_machine(apart, "cpu")
    setting = make_setting(asked_size=(9, 9, 9))
    (record,) = measure(Store(tmp_path), machine, apart, setting)
    assert record.status == "complete"
    (read,) = Store(tmp_path).records()
    assert read.faults == ()
    assert read.content["job"] == setting.job(machine)
    assert read.content["measured"]["latency_s"] > 0
    assert read.content["hardware"] == machine.hardware
    assert read.content["asked_size"] == [9, 9, 9]
    assert read.content["provenance"]["hardware"]["cores"] >= 1
    assert describe(read).endswith("profile of moody: complete")


def test_what_this_version_has_measured_is_not_measured_again(
    make_setting: Make, machine: Machine, tmp_path: Path, clean_code: dict[str, Any]
) -> None:
    store, script = Store(tmp_path), Scripted()
    one, other = make_setting(), make_setting(mode="train")
    measure(store, machine, script, one)
    found = measure(store, machine, script, one, other, one)
    assert [record.content["measured"]["latency_s"] for record in found] == [1.0, 2.0]
    measure(store, machine, script, one, again=True)
    assert len(script.orders) == 3
    clean_code["commit"] = "another"
    measure(store, machine, script, one)
    assert len(script.orders) == 4
    clean_code["dirty"] = True
    measure(store, machine, script, one)
    measure(store, machine, script, one)
    assert len(script.orders) == 6


def test_out_of_memory_stays_and_faults_are_tried_again(make_setting: Make, machine: Machine, tmp_path: Path) -> None:
    provenance = {"code": CODE}
    script = Scripted(
        Answer("oom", "no room", {"memory": {"peak_allocated_bytes": 5}}, provenance),
        Answer("timeout", "too long", {}, provenance),
        Answer("failed", "a bug", {}, provenance),
    )
    settings = [make_setting(batch=batch) for batch in (1, 2, 3)]
    first = measure(Store(tmp_path), machine, script, *settings)
    assert [record.status for record in first] == ["oom", "timeout", "failed"]
    assert [record.content["message"] for record in first] == ["no room", "too long", "a bug"]
    second = measure(Store(tmp_path), machine, script, *settings)
    assert [record.status for record in second] == ["oom", "complete", "complete"]


def test_operators_that_a_record_lacks_are_measured(make_setting: Make, machine: Machine, tmp_path: Path) -> None:
    store, script = Store(tmp_path), Scripted()
    measure(store, machine, script, make_setting())
    measure(store, machine, script, make_setting(), operators=4)
    measure(store, machine, script, make_setting(), operators=3)
    assert [order.operators for order in script.orders] == [0, 4]


def test_traces_go_into_files_of_their_own(make_setting: Make, machine: Machine, tmp_path: Path) -> None:
    script = Scripted()
    measure(Store(tmp_path), machine, script, make_setting(), make_setting(mode="train"), traces=tmp_path / "traces")
    assert [Path(order.trace).name for order in script.orders] == [
        "moody-8x8x8-infer.json.gz",
        "moody-8x8x8-train.json.gz",
    ]
    assert all(Path(order.trace).is_absolute() for order in script.orders)


def test_traces_of_several_widths_go_into_files_of_their_own(
    make_setting: Make, machine: Machine, tmp_path: Path
) -> None:
    script = Scripted()
    settings = [make_setting(what="scan", in_channels=width) for width in (48, 96)]
    measure(Store(tmp_path), machine, script, *settings, traces=tmp_path / "traces")
    assert [Path(order.trace).name for order in script.orders] == [
        "moody-48-8x8x8-infer.json.gz",
        "moody-96-8x8x8-infer.json.gz",
    ]


def test_what_lies_beside_an_answer_belongs_to_the_record(make_setting: Make, machine: Machine, tmp_path: Path) -> None:
    (record,) = measure(Store(tmp_path), machine, Scripted(), make_setting())
    assert (record.folder / "more.npz").read_bytes() == b"numbers"
    (record.folder / "more.npz").write_bytes(b"others")
    (read,) = Store(tmp_path).records()
    assert read.status == "damaged"


def test_a_refusal_is_the_users_mistake_and_leaves_no_record(
    make_setting: Make, machine: Machine, tmp_path: Path
) -> None:
    with pytest.raises(BenchError, match="moody 8³ infer: no such option"):
        measure(Store(tmp_path), machine, Scripted(Answer("refused", "no such option")), make_setting())
    assert Store(tmp_path).records() == []


def test_an_interrupt_keeps_what_was_measured(make_setting: Make, machine: Machine, tmp_path: Path) -> None:
    class Interrupted(Scripted):
        def carry_out(self, order: Order, _on_news: object = None) -> Outcome:
            if self.orders:
                raise KeyboardInterrupt
            return super().carry_out(order)

    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        measure(store, machine, Interrupted(), make_setting(), make_setting(mode="train"))
    assert [record.status for record in store.records()] == ["complete"]


def test_everything_that_figures_depend_on_is_in_the_key(make_setting: Make, machine: Machine) -> None:
    base = make_setting()
    changed = [
        replace(base, **{name: value})
        for name, value in {
            **{"mode": "train", "batch": 2, "in_channels": 5, "classes": 6, "precision": "bf16", "compile": True},
            **{"channels_last": True, "cudnn_benchmark": False, "backend": "reference", "image_size": (16, 8, 8)},
            **{"model": "other", "model_options": {"mood": "naps"}, "what": "volume", "more": {"flips": 8}},
        }.items()
    ]
    jobs = [str(setting.job(machine)) for setting in (base, *changed)]
    jobs += [str(base.job(replace(machine, hardware="another"))), str(base.job(replace(machine, torch="9")))]
    assert len(set(jobs)) == len(jobs)
    assert base.job(machine) == replace(base, asked_size=(9, 9, 9), backend="torch").job(machine)
