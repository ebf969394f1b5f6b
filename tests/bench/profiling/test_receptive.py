"""Effective receptive fields: of layers whose fields are known, of a registered network, of a trained run."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import data
import models
from bench.errors import BenchError
from bench.job import Job
from bench.profiling import receptive
from bench.profiling.clock import Repeater
from bench.profiling.driver import Driver
from bench.profiling.instruments import Instruments
from bench.profiling.measures import MEASURES
from bench.profiling.mixers import MIXERS
from bench.profiling.network import build
from bench.profiling.receptive import FILE, draw, measure_receptive_field, spread, squared_gradient, to_file
from bench.profiling.setting import Setting
from bench.store import WEIGHTS, OpenRecord, Record, Store

CPU = torch.device("cpu")


def energy(network: nn.Module, size: tuple[int, int, int], channels: int = 1, classes: int = 1) -> NDArray[np.float64]:
    """The sum over classes of the squared gradient, for one image: the mean over all signs."""
    torch.manual_seed(0)
    image = torch.randn(1, channels, *size)
    signs = list(itertools.product((1.0, -1.0), repeat=classes))
    each = [squared_gradient(network, image, torch.tensor(sign), "fp32") for sign in signs]
    return torch.stack(each).mean(0).numpy()


def make_setting(**changes: Any) -> Setting:
    stated: dict[str, Any] = {
        "what": "receptive-field",
        "model": "segresnet",
        "model_options": models.resolve_options("segresnet", {"init_filters": 8}),
        "image_size": (16, 16, 16),
        "mode": "infer",
        "batch": 1,
        "in_channels": 4,
        "classes": 4,
        "precision": "fp32",
        "more": {"inputs": 3, "run": ""},
    }
    return Setting(**{**stated, **changes})


def make_tools(deadline: float = math.inf, said: list[str] | None = None) -> Instruments:
    on_pass = [].append if said is None else said.append
    return Instruments(CPU, Repeater(CPU), Driver(CPU), None, deadline, on_pass)


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[nn.Module], nn.Module]:
    """Lets a network of the test's own be the one that is measured."""

    def put(network: nn.Module) -> nn.Module:
        monkeypatch.setattr(receptive, "build", lambda _setting, _device: network)
        return network

    return put


class Mean(nn.Module):
    """The mean over the volume, everywhere."""

    def forward(self, image: Tensor) -> Tensor:
        return image.mean((2, 3, 4), keepdim=True).expand_as(image)


# --- the gradient


def test_of_a_convolution_it_is_its_squared_weights_over_classes_and_channels() -> None:
    torch.manual_seed(1)
    layer = nn.Conv3d(2, 3, 3, padding=1)
    expected = np.zeros((7, 6, 9))
    expected[2:5, 2:5, 3:6] = layer.weight.detach().double().square().sum((0, 1)).numpy()
    np.testing.assert_allclose(energy(layer, (7, 6, 9), 2, 3), expected, rtol=1e-5)


def test_of_two_convolutions_it_is_that_of_their_composed_kernel() -> None:
    torch.manual_seed(1)
    first, second = nn.Conv3d(2, 3, 3, padding=1, bias=False), nn.Conv3d(3, 2, 3, padding=1, bias=False)
    kernel = torch.zeros(2, 2, 5, 5, 5)
    for place in itertools.product(range(3), repeat=3):
        through = torch.einsum("km,mcdhw->kcdhw", second.weight.detach()[:, :, *place], first.weight.detach())
        d, h, w = place
        kernel[:, :, d : d + 3, h : h + 3, w : w + 3] += through
    expected = np.zeros((9, 9, 9))
    expected[2:7, 2:7, 2:7] = kernel.double().square().sum((0, 1)).numpy()
    found = energy(nn.Sequential(first, second), (9, 9, 9), 2, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-9)
    assert (found > 0).sum() == 125


def test_over_random_signs_it_is_the_sum_of_each_class_squared_gradient() -> None:
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv3d(2, 3, 3, padding=1), nn.GELU(), nn.Conv3d(3, 2, 3, padding=1))
    image = torch.randn(1, 2, 7, 7, 7, requires_grad=True)
    each = [torch.autograd.grad(network(image)[0, k, 3, 3, 3], image)[0][0] for k in range(2)]
    expected = sum(gradient.double().square().sum(0) for gradient in each)
    same, opposed = (squared_gradient(network, image, torch.tensor([1.0, sign]), "fp32") for sign in (1.0, -1.0))
    torch.testing.assert_close((same + opposed) / 2, expected, rtol=1e-5, atol=1e-12)
    assert not torch.allclose(same, expected, rtol=0.1)
    drawn = torch.stack([draw(number, 1, 2, (1, 1, 1))[1] for number in range(400)])
    mean = torch.stack([same if signs.prod() > 0 else opposed for signs in drawn]).mean(0)
    torch.testing.assert_close(mean, expected, rtol=0.1, atol=0.05 * float(expected.max()))


def test_draws_are_normal_and_the_same_for_every_network() -> None:
    image, signs = draw(3, 2, 5, (8, 8, 8))
    again, others = draw(3, 2, 4, (8, 8, 8))
    assert torch.equal(image, again)
    assert image.shape == (1, 2, 8, 8, 8)
    assert (signs.shape, others.shape) == ((5,), (4,))
    assert not torch.equal(image, draw(4, 2, 5, (8, 8, 8))[0])
    assert abs(float(image.mean())) < 0.1
    assert float(image.std()) == pytest.approx(1, abs=0.1)
    drawn = torch.stack([draw(number, 1, 3, (2, 2, 2))[1] for number in range(400)])
    assert drawn.unique().tolist() == [-1, 1]
    assert drawn.mean(0).abs().max() < 0.15
    assert (drawn.mT @ drawn / 400 - torch.eye(3)).abs().max() < 0.15


def test_what_is_too_small_to_be_squared_in_fp32_is_seen() -> None:
    layer = nn.Conv3d(1, 1, 3, padding=1, bias=False)
    nn.init.constant_(layer.weight, 1e-30)
    found = spread(energy(layer, (5, 5, 5)))
    assert found["seen"] == pytest.approx(27 / 125)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_precision_is_that_of_the_setting(precision: str) -> None:
    seen: list[tuple[str, bool, bool]] = []

    def look(when: str) -> None:
        seen.append((when, torch.is_autocast_enabled("cpu"), torch.backends.cuda.matmul.allow_tf32))

    class Watched(nn.Conv3d):
        def forward(self, image: Tensor) -> Tensor:
            look("forward")
            logits = super().forward(image)
            logits.register_hook(lambda _gradient: look("backward"))
            return logits

    torch.manual_seed(0)
    layer, image, signs = Watched(1, 2, 3, padding=1), torch.randn(1, 1, 5, 5, 5), torch.tensor([1.0, -1.0])
    exact = squared_gradient(layer, image, signs, "fp32")
    assert seen == [("forward", False, False), ("backward", False, False)]
    found = squared_gradient(layer, image, signs, precision)  # type: ignore[arg-type]
    assert seen[2:] == [("forward", precision == "bf16", True), ("backward", False, True)]
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, exact, rtol=0.05, atol=1e-3)


class Pair(nn.Module):
    def forward(self, image: Tensor) -> list[Tensor]:
        return [image, image]


class Blind(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return torch.ones_like(image)


class Undefined(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image * math.inf


@pytest.mark.parametrize(
    ("network", "kind", "message"),
    [
        (Pair(), BenchError, r"returned a list in evaluation; expected logits \(1, 1, 4, 4, 4\)"),
        (nn.MaxPool3d(2), BenchError, r"a tensor \(1, 1, 2, 2, 2\) in evaluation"),
        (Blind(), BenchError, "no gradient leads"),
        (Undefined(), FloatingPointError, "not finite"),
    ],
)
def test_a_network_without_a_field_says_so(network: nn.Module, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        energy(network, (4, 4, 4))
    with pytest.raises(FloatingPointError, match="every gradient"):
        spread(np.zeros((4, 4, 4)))


# --- how it spreads


def distances(size: tuple[int, ...]) -> NDArray[np.float64]:
    axes = np.meshgrid(*(np.arange(edge) - edge // 2 for edge in size), indexing="ij")
    return np.sqrt(sum(axis.astype(float) ** 2 for axis in axes))


@pytest.mark.parametrize("size", [(5, 6, 9), (8, 8, 8), (7, 4, 4)])
def test_radii_and_shares_against_counting(size: tuple[int, ...]) -> None:
    made = np.random.default_rng(0).exponential(size=size) ** 4
    made[made < 1e-3] = 0
    found, away = spread(made), distances(size)
    for name, share in (("r50", 0.5), ("r90", 0.9), ("r99", 0.99)):
        radius = next(r for r in np.unique(away) if made[away <= r].sum() >= share * made.sum())
        assert found["radii"][name] == pytest.approx(radius)
    radii = found["radial"]["radius"]
    assert radii == list(range(math.ceil(away.max()) + 1))
    expected = [made[away <= r].sum() / made.sum() for r in radii]
    np.testing.assert_allclose(found["radial"]["share"], expected)
    assert found["radial"]["share"][-1] == 1
    assert found["seen"] == pytest.approx((made > 0).mean())
    assert found["seen_1e6"] == pytest.approx((made > 1e-6 * made.max()).mean())
    assert found["beyond_half"] == pytest.approx(made[away > min(size) / 4].sum() / made.sum())
    for axis, name in enumerate("DHW"):
        along = np.arange(size[axis]) - size[axis] // 2
        weights = made.sum(tuple(other for other in range(3) if other != axis))
        assert found["axes"][name] == pytest.approx(np.average(along, weights=weights))


def test_seen_at_all_and_seen_well_are_told_apart() -> None:
    made = np.full((2, 2, 5), 1e-7)
    made[1, 1, 2], made[0, 0, :2] = 1.0, (0, 2e-6)
    found = spread(made)
    assert (found["seen"], found["seen_1e6"]) == (pytest.approx(19 / 20), pytest.approx(2 / 20))


def test_of_the_identity_it_is_one_voxel() -> None:
    found = spread(energy(nn.Identity(), (6, 7, 8)))
    assert found["radii"] == {"r50": 0, "r90": 0, "r99": 0}
    assert set(found["radial"]["share"]) == {1.0}
    assert found["seen"] == found["seen_1e6"] == pytest.approx(1 / 336)
    assert found["beyond_half"] == 0
    assert found["axes"] == {"D": 0, "H": 0, "W": 0}


def test_of_the_mean_it_is_all_voxels_alike() -> None:
    found = spread(energy(Mean(), (8, 8, 8)))
    assert (found["seen"], found["seen_1e6"]) == (1, 1)
    assert found["axes"] == {axis: pytest.approx(-0.5) for axis in "DHW"}
    assert found["beyond_half"] == pytest.approx((distances((8, 8, 8)) > 2).mean())


def test_a_scan_in_one_direction_sees_what_came_before() -> None:
    torch.manual_seed(0)
    image = torch.randn(1, 16, 4, 4, 4)
    found = squared_gradient(MIXERS["mamba_1"].build(16), image, torch.ones(16), "fp32").numpy()
    centre = 2 * 16 + 2 * 4 + 2
    assert (found.ravel()[: centre + 1] > 0).all()
    assert (found.ravel()[centre + 1 :] == 0).all()
    told = spread(found)
    assert told["axes"]["D"] < 0
    assert told["seen"] == pytest.approx((centre + 1) / 64)


# --- the file


def test_the_file_holds_three_planes_and_the_curve() -> None:
    made = np.full((4, 6, 8), 1e-20)
    made[2, 3, 4], made[2, 1, 5], made[1, 3, 7], made[3, 5, 4] = 10.0, 1.0, 0.1, 0.01
    made[3, 0, 0] = 100.0  # the largest lies in none of the planes
    made[2, 0, 0] = made[0, 3, 0] = made[0, 0, 4] = 0.0
    radial = spread(made)["radial"]
    content = np.load(io.BytesIO(to_file(made, radial)))
    assert set(content) == {"axial", "coronal", "sagittal", "radius", "share"}
    axial, coronal, sagittal = (content[name] for name in ("axial", "coronal", "sagittal"))
    assert (axial.shape, coronal.shape, sagittal.shape) == ((6, 8), (4, 8), (4, 6))
    assert {plane.dtype for plane in (axial, coronal, sagittal)} == {np.dtype(np.float16)}
    assert axial[3, 4] == coronal[2, 4] == sagittal[2, 3] == -1
    assert (axial[1, 5], coronal[1, 7], sagittal[3, 5]) == (-2, -3, -4)
    assert axial.min() == coronal.min() == sagittal.min() == -12
    np.testing.assert_array_equal(content["radius"], radial["radius"])
    np.testing.assert_array_equal(content["share"], radial["share"])


# --- the measurement


def test_of_a_registered_network() -> None:
    assert MEASURES["receptive-field"] is measure_receptive_field
    said: list[str] = []
    tools = make_tools(said=said)
    found = measure_receptive_field(make_setting(), tools)
    shares = {"radii", "radial", "seen", "seen_1e6", "beyond_half", "axes"}
    assert set(found) == {*shares, "parameters", "inputs", "spent_s"}
    assert said == ["input 1 of 3", "input 2 of 3", "input 3 of 3"]
    assert found["inputs"] == 3
    assert found["parameters"] == sum(p.numel() for p in build(make_setting(), CPU).parameters())
    assert 0 < found["radii"]["r50"] < found["radii"]["r90"] < found["radii"]["r99"] < 14
    assert found["seen"] == 1, "a group norm sees every voxel"
    assert found["spent_s"] > 0
    assert np.load(io.BytesIO(tools.files[FILE]))["axial"].shape == (16, 16)


def test_it_is_the_mean_over_numbered_inputs(use: Callable[[nn.Module], nn.Module]) -> None:
    torch.manual_seed(0)
    layers = (nn.Conv3d(2, 4, 3, padding=1), nn.Dropout(0.5), nn.Tanh(), nn.Conv3d(4, 3, 3, padding=1))
    network = use(nn.Sequential(*layers))
    setting = make_setting(in_channels=2, classes=3, image_size=(6, 7, 8), more={"inputs": 4})
    found = measure_receptive_field(setting, make_tools())
    each = [squared_gradient(network, *draw(number, 2, 3, (6, 7, 8)), "fp32").numpy() for number in (1, 2, 3, 4)]
    expected = spread(np.mean(each, axis=0))
    np.testing.assert_allclose(found["radial"]["share"], expected["radial"]["share"])
    assert found["axes"] == pytest.approx(expected["axes"])
    assert not network.training, "dropout is no part of it"
    assert not any(parameter.requires_grad for parameter in network.parameters()), "they take memory for nothing"


def test_eight_inputs_unless_said_otherwise(use: Callable[[nn.Module], nn.Module]) -> None:
    use(nn.Identity())
    assert measure_receptive_field(make_setting(more={}), make_tools())["inputs"] == 8


def test_at_the_deadline_it_ends_with_what_is_done(use: Callable[[nn.Module], nn.Module]) -> None:
    use(nn.Identity())
    said: list[str] = []
    tools = make_tools(deadline=0, said=said)
    found = measure_receptive_field(make_setting(), tools)
    assert (found["inputs"], said) == (1, ["input 1 of 3"])
    assert found["radii"]["r99"] == 0
    assert FILE in tools.files


def test_layout_and_compilation_are_those_of_the_setting(
    use: Callable[[nn.Module], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts, compiled = [], []

    class Watched(nn.Conv3d):
        def forward(self, image: Tensor) -> Tensor:
            layouts.append([t.is_contiguous(memory_format=torch.channels_last_3d) for t in (image, self.weight)])
            return super().forward(image)

    network = use(Watched(4, 4, 3, padding=1))
    monkeypatch.setattr(torch, "compile", lambda given: compiled.append(given) or given)
    measure_receptive_field(make_setting(more={"inputs": 1}), make_tools())
    assert (layouts, compiled) == ([[False, False]], [])
    measure_receptive_field(make_setting(more={"inputs": 1}, channels_last=True, compile=True), make_tools())
    assert (layouts[1:], compiled) == ([[True, True]], [network])


def test_fp16_is_refused() -> None:
    with pytest.raises(BenchError, match=r"fp16.*--precision bf16, tf32 or fp32"):
        measure_receptive_field(make_setting(precision="fp16"), make_tools())


# --- a trained run


@pytest.fixture
def run(tmp_path: Path, make_job: Callable[..., Job]) -> Record:
    """A complete run of segresnet on patches of 16³, its weights farther from zero than those of seed 0."""
    opened = _open(tmp_path, make_job("segresnet", changes=("data.patch_size=16,16,16",)))
    return opened.finish("complete")


def _open(root: Path, job: Job) -> OpenRecord:
    opened = Store(root).open_run(job, data={"card": data.card(job.dataset).to_dict(), "regions": {"WT": [1]}})
    opened.write_cases({})
    network = build(make_setting(), CPU)
    weights = {name: tensor + 0.1 * torch.sign(tensor) for name, tensor in network.state_dict().items()}
    (opened.folder / WEIGHTS).parent.mkdir(exist_ok=True)
    empty: dict[str, Any] = {"optimiser": {}, "scaler": {}, "progress": {}, "random": []}
    torch.save({"model": weights, **empty}, opened.folder / WEIGHTS)
    return opened


def of_run(record: Record, **changes: Any) -> Setting:
    return make_setting(**{"more": {"inputs": 1, "run": record.key}, "weights_from": str(record.folder), **changes})


def test_of_a_run_it_is_that_of_its_weights(run: Record, use: Callable[[nn.Module], nn.Module]) -> None:
    found = measure_receptive_field(of_run(run), make_tools())
    untrained = measure_receptive_field(make_setting(more={"inputs": 1, "run": ""}), make_tools())
    assert found["radial"] != untrained["radial"]
    trained = build(make_setting(), CPU)
    trained.load_state_dict(torch.load(run.folder / WEIGHTS)["model"])
    use(trained)
    expected = measure_receptive_field(make_setting(more={"inputs": 1, "run": ""}), make_tools())
    assert found["radial"] == expected["radial"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "unetr", "model_options": {}}, "the model segresnet, .* asked for with unetr"),
        ({"model_options": {"init_filters": 16}}, "the options .*'init_filters': 8.*'init_filters': 16.*"),
        ({"in_channels": 3}, "the channels 4, .* with 3"),
        ({"classes": 5}, "the classes 4, .* with 5"),
        ({"image_size": (16, 16, 24)}, r"the patch \(D, H, W\) \(16, 16, 16\), .*\(16, 16, 24\)"),
    ],
)
def test_a_run_of_something_else_is_refused(run: Record, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchError, match=f"{message}; name the run alone"):
        measure_receptive_field(of_run(run, **changes), make_tools())


def test_a_run_that_has_no_weights_is_refused(run: Record, tmp_path: Path, make_job: Callable[..., Job]) -> None:
    failed = _open(tmp_path, make_job("segresnet", seed=1)).finish("failed")
    with pytest.raises(BenchError, match="is failed, of the kind run; expected a complete run"):
        measure_receptive_field(of_run(failed), make_tools())
    (run.folder / WEIGHTS).unlink()
    with pytest.raises(BenchError, match="there are no weights"):
        measure_receptive_field(of_run(run), make_tools())
    with pytest.raises(BenchError, match="no run"):
        measure_receptive_field(of_run(replace(run, folder=tmp_path / "nowhere")), make_tools())
