"""From a request to settings: sizes, defaults, and what makes no sense."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import data
import models
from bench.errors import BenchError
from bench.profiling.mixers import MIXERS
from bench.profiling.plan import Request, check_request, make_settings
from bench.profiling.setting import Machine, Setting
from bench.store import Record, Store
from models.errors import ModelError


@pytest.fixture
def plan(machine: Machine, tmp_path: Path) -> Callable[..., list[Setting]]:
    """Settings for fields of a request, on a CPU or a GPU."""

    def make(on_gpu: bool = False, **fields: Any) -> list[Setting]:
        where = replace(machine, device="cuda:0") if on_gpu else machine
        return make_settings(Request(**fields), where, Store(tmp_path))

    return make


Plan = Callable[..., list[Setting]]


def test_by_default_the_papers_eight_infer_and_train_at_64(plan: Plan) -> None:
    settings = plan()
    assert [(one.model, one.mode) for one in settings] == [
        (name, mode) for name in models.SEGMAMBA_TABLE_1 for mode in ("infer", "train")
    ]
    assert {one.image_size for one in settings} == {(64, 64, 64)}
    assert {(one.batch, one.in_channels, one.classes, one.precision) for one in settings} == {(1, 4, 4, "fp32")}
    assert {one.precision for one in plan(on_gpu=True)} == {"bf16"}


def test_a_size_that_a_network_does_not_take_becomes_the_nearest(plan: Plan) -> None:
    found = {one.model: one for one in plan(models=["segresnet", "unetr", "swinunetr"], resolutions=[47], mode="infer")}
    assert {name: one.image_size[0] for name, one in found.items()} == {"segresnet": 48, "unetr": 48, "swinunetr": 64}
    assert {one.asked_size for one in found.values()} == {(47, 47, 47)}


@pytest.mark.parametrize(
    ("model", "options", "asked", "nearest"),
    [
        ("segresnet", {}, 12, (16, 16, 16)),  # two are as near: upwards
        ("segresnet", {}, 3, (8, 8, 8)),
        ("unetr", {}, (100, 33, 64), (96, 32, 64)),
        ("segmamba_release", {}, 40, (32, 32, 32)),  # D·H·W must be a multiple of 32768
        ("segmamba_release", {}, (16, 64, 64), (32, 64, 64)),
    ],
)
def test_nearest_sizes(model: str, options: dict, asked: Any, nearest: tuple[int, int, int]) -> None:
    found = models.nearest_size(model, asked, options)
    assert found == nearest
    assert models.nearest_size(model, found, options) == found


def test_options_of_a_network_are_part_of_it_and_others_are_refused(plan: Plan) -> None:
    (one,) = plan(models=["segmamba"], mode="infer", changes=["model_options.segmamba.d_state=8"])
    assert one.model_options == models.resolve_options("segmamba", {"d_state": 8})
    with pytest.raises(BenchError, match="without a protocol"):
        plan(models=["segmamba"], changes=["train.steps=5"])
    with pytest.raises(BenchError, match="would change nothing"):
        plan(models=["segmamba"], changes=["model_options.unetr.hidden_size=8"])
    with pytest.raises(ModelError, match="unknown"):
        plan(models=["nonet"])


def test_scaling_takes_several_sizes(plan: Plan) -> None:
    assert len({one.image_size for one in plan(models=["unetr"], scaling=True)}) == 3
    assert len({one.image_size for one in plan(models=["unetr"], scaling=True, on_gpu=True)}) == 4
    assert len(plan(models=["unetr"], scaling=True, resolutions=[32, 48, 64, 80], mode="infer")) == 4


def test_volumes_are_with_and_without_mirror_images_and_never_train(plan: Plan) -> None:
    found = plan(what="volume", models=["unetr"])
    assert [(one.mode, one.more["flips"], one.image_size[0]) for one in found] == [("infer", 1, 128), ("infer", 8, 128)]
    assert found[0].more["shape"] == [155, 240, 240]
    with pytest.raises(BenchError, match="without training"):
        plan(what="volume", mode="train")


def test_mixers_come_in_all_sizes_and_channels(plan: Plan) -> None:
    found = plan(what="mixer", on_gpu=True, mode="infer")
    assert len(found) == len(MIXERS) * 4 * 4
    assert {one.in_channels for one in found} == {48, 96, 192, 384}
    assert {one.called for one in plan(what="mixer", models=["attention"])} == {"Self-attention"}
    with pytest.raises(BenchError, match="nonsense"):
        plan(what="mixer", models=["nonsense"])


def test_receptive_fields_take_their_own_precision_and_do_not_try_kernels(plan: Plan) -> None:
    on_gpu = plan(what="receptive-field", models=["unetr"], on_gpu=True)
    assert [(one.precision, one.cudnn_benchmark, one.image_size[0]) for one in on_gpu] == [("tf32", False, 128)]
    (on_cpu,) = plan(what="receptive-field", models=["unetr"], inputs=3)
    assert (on_cpu.image_size[0], on_cpu.more) == (64, {"inputs": 3, "run": ""})


def test_the_field_of_a_run_is_of_its_network_and_patch(
    plan: Plan, complete_record: Callable[..., Record], tmp_path: Path
) -> None:
    record = complete_record(tmp_path)
    card = data.card(record.content["job"]["dataset"])
    (one,) = plan(what="receptive-field", run=record.key[:6])
    job = record.content["job"]
    assert one.model == job["model"]
    assert one.model_options == models.resolve_options(one.model, job["model_options"])
    assert one.image_size == tuple(job["protocol"]["data"]["patch_size"])
    assert (one.in_channels, one.classes) == (len(card.channels), card.classes)
    assert one.weights_from == str(record.folder.resolve())
    assert str(tmp_path) not in str(one.more)
    with pytest.raises(BenchError, match="leave --model"):
        plan(what="receptive-field", run=record.key, models=["unetr"])


def test_a_ceiling_looks_upwards_from_the_smallest(plan: Plan) -> None:
    found = plan(what="ceiling", limit_bytes=5, models=["segresnet"])
    assert [(one.mode, one.image_size, one.more) for one in found] == [
        (mode, (8, 8, 8), {"limit_bytes": 5}) for mode in ("infer", "train")
    ]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"what": "networks"}, "did you mean 'network'"),
        ({"mode": "training"}, "--mode 'training'"),
        ({"precision": "fp8"}, "fp16"),
        ({"backend": "cuda"}, "--backend 'cuda'"),
        ({"batch": 0}, "--batch 0"),
        ({"inputs": 0}, "--inputs 0"),
        ({"channels": (4, 5)}, "one number of image channels"),
        ({"scaling": True, "resolutions": (64, 96, 64)}, "with 2 resolutions"),
        ({"scaling": True, "what": "volume"}, "expected network, mixer or scan"),
        ({"what": "ceiling", "limit_bytes": 1, "resolutions": (64,)}, "leave --resolution out"),
        ({"run": "abc"}, "expected --what receptive-field"),
        ({"overlap": 1.0}, "--overlap 1"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(BenchError, match=told):
        check_request(Request(**fields))


def test_optimised_is_what_the_machine_has(plan: Plan, machine: Machine) -> None:
    """And stands in the key only where it is on, since there are records without."""
    on_gpu, on_cpu, plain = (
        plan(models=["unetr"], mode="infer", on_gpu=gpu, optimised=on)[0]
        for gpu, on in ((True, True), (False, True), (True, None))
    )
    assert (on_gpu.channels_last, on_gpu.fused, on_gpu.graph) == (True, True, True)
    assert (on_cpu.channels_last, on_cpu.fused, on_cpu.graph) == (True, False, False)
    assert (plain.channels_last, plain.fused, plain.graph) == (False, False, False)
    assert on_gpu.job(machine)["fused"] is on_gpu.job(machine)["graph"] is True
    assert not {"fused", "graph"} & plain.job(machine).keys()


def test_as_published_is_with_the_published_scan_where_there_is_one(machine: Machine, tmp_path: Path) -> None:
    for obstacles, backend in (({}, "mamba_ssm"), ({"mamba_ssm": "not installed"}, "torch")):
        request = Request(models=["segmamba"], mode="infer", optimised=False)
        (one,) = make_settings(request, replace(machine, obstacles=obstacles), Store(tmp_path))
        assert (one.backend, one.channels_last) == (backend, False)
        (named,) = make_settings(replace(request, backend="reference"), machine, Store(tmp_path))
        assert named.backend == "reference"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"fused": True}, "--fused on .*: it needs a GPU"),
        ({"graph": True}, "--graph on .*: it needs a GPU"),
        ({"fused": True, "what": "mixer", "on_gpu": True}, "--fused with --what mixer: expected network, volume"),
        ({"optimised": True, "what": "scan", "on_gpu": True}, "--optimised"),
    ],
)
def test_what_cannot_be_fused_or_replayed_is_refused(plan: Plan, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(BenchError, match=words):
        plan(**fields)


def test_fused_layers_and_graphs_reach_the_passes(make_setting: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.profiling import network as module

    seen: list[str] = []
    monkeypatch.setattr(module, "Replayed", lambda function: seen.append("replayed") or function)
    monkeypatch.setattr("models.fusion.fuse", lambda _network: seen.append("fused"))
    setting = replace(make_setting(mode="infer"), fused=True, graph=True)
    module.infer_work(nn.Conv3d(setting.in_channels, 2, 1), setting, torch.device("cpu"))
    assert seen == ["fused", "replayed"]
    monkeypatch.setattr(module, "Step", lambda _network, _fields, execution, _device: seen.append(execution))
    module.train_work(nn.Conv3d(setting.in_channels, 2, 1), setting, torch.device("cpu"))
    assert (seen[-1].fused, seen[-1].graph) == (True, True)  # type: ignore[attr-defined]
