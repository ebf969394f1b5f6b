"""Token mixers: each is what its name says, and what is measured of it is what was asked for."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from monai.networks.nets.swin_unetr import SwinTransformerBlock
from torch import Tensor, nn

from bench.errors import BenchError
from bench.profiling.clock import Repeater, Rule
from bench.profiling.driver import Driver
from bench.profiling.instruments import Instruments
from bench.profiling.measures import MEASURES
from bench.profiling.mixers import MIXERS, Mixer, check_mixer, measure_mixer
from bench.profiling.operations import OperationCount, count_operations, scan_flops
from bench.profiling.setting import Setting
from models.mamba import Mamba, MultiOrderMamba
from models.segmamba import as_tokens, as_volume

CPU = torch.device("cpu")
C = 32


def build(name: str, channels: int = C) -> nn.Module:
    torch.manual_seed(0)
    return MIXERS[name].build(channels).eval()


def make_setting(name: str, mode: str = "infer", **changes: object) -> Setting:
    stated = {"batch": 2, "in_channels": C, "classes": C, "precision": "fp32", **changes}
    return Setting("mixer", name, {}, (4, 4, 4), mode, **stated)  # type: ignore[arg-type]


def make_tools(operators: int = 0) -> Instruments:
    repeater = Repeater(CPU, rule=Rule(least=2, enough=2, at_least_s=0, at_most_s=0))
    return Instruments(CPU, repeater, Driver(CPU), None, math.inf, lambda _what: None, operators)


@pytest.mark.parametrize("name", MIXERS)
def test_features_keep_their_shape(name: str) -> None:
    mixer = build(name)
    for size in ((5, 6, 4), (8, 9, 7)):
        features = torch.randn(2, C, *size)
        assert mixer(features).shape == features.shape


def test_attention_is_that_of_all_tokens_with_all_in_heads_of_16() -> None:
    mixer = build("attention", 48)
    features = torch.randn(2, 48, 3, 4, 5)
    tokens = as_tokens(features)
    q, k, v = mixer.layer.qkv(tokens).chunk(3, dim=-1)
    heads = []
    for head in range(3):
        part = slice(16 * head, 16 * head + 16)
        weights = (q[..., part] @ k[..., part].mT / 16**0.5).softmax(-1)
        heads.append(weights @ v[..., part])
    expected = as_volume(mixer.layer.out(torch.cat(heads, dim=-1)), (3, 4, 5))
    torch.testing.assert_close(mixer(features), expected)


@pytest.mark.parametrize("size", [(9, 7, 15), (5, 6, 4)])
def test_window_attention_is_swinunetrs(size: tuple[int, int, int]) -> None:
    block = SwinTransformerBlock(C, C // 16, (7, 7, 7), (0, 0, 0), qkv_bias=True)
    block.norm1 = nn.Identity()
    mixer = build("window_attention_7")
    mixer.attention.load_state_dict(block.attn.state_dict())
    features = torch.randn(2, C, *size)
    expected = block.forward_part1(features.permute(0, 2, 3, 4, 1), None).permute(0, 4, 1, 2, 3)
    torch.testing.assert_close(mixer(features), expected)


@pytest.mark.parametrize(("name", "kernel", "groups"), [("depthwise_7", 7, C), ("conv_3", 3, 1)])
def test_convolutions(name: str, kernel: int, groups: int) -> None:
    mixer = build(name)
    assert isinstance(mixer, nn.Conv3d)
    assert (mixer.kernel_size, mixer.groups, mixer.bias is not None) == ((kernel,) * 3, groups, True)


@pytest.mark.parametrize(
    ("name", "orders"),
    [("mamba_1", ()), ("mamba_2", ("forward", "backward")), ("mamba_3", ("forward", "backward", "slices"))],
)
def test_mamba_layers_are_segmambas_and_slices_follow_the_depth(name: str, orders: tuple[str, ...]) -> None:
    features = torch.randn(1, C, 3, 4, 5)
    layer: nn.Module = MultiOrderMamba(C, orders, 3, 16, 4, 2) if orders else Mamba(C, 16, 4, 2)
    mixer = build(name)
    layer.load_state_dict(mixer.layer.state_dict())
    expected = as_volume(layer(as_tokens(features), (3, 4, 5)), (3, 4, 5))
    torch.testing.assert_close(mixer(features), expected)


def mamba(orders: int, length: int) -> OperationCount:
    inner, rank, states = 2 * C, C // 16, 16
    outside = length * (C * 2 * inner + inner * C)
    return OperationCount(
        convolution=orders * inner * 4 * length,
        matrix_product=outside + orders * length * (inner * (rank + 2 * states) + rank * inner),
        scan=orders * scan_flops(1, inner, length, states, skip=True, gate=True) // 2,
    )


def attention(length: int, sequences: int = 1) -> OperationCount:
    return OperationCount(0, sequences * (2 * length**2 * C + 4 * length * C**2), 0)


@pytest.mark.parametrize("edge", [5, 9, 14])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mamba_1", lambda edge: mamba(1, edge**3)),
        ("mamba_2", lambda edge: mamba(2, edge**3)),
        ("mamba_3", lambda edge: mamba(3, edge**3)),
        ("attention", lambda edge: attention(edge**3)),
        ("window_attention_7", lambda edge: attention(min(edge, 7) ** 3, (-(-edge // 7)) ** 3)),
        ("depthwise_7", lambda edge: OperationCount(edge**3 * C * 343, 0, 0)),
        ("conv_3", lambda edge: OperationCount(edge**3 * C**2 * 27, 0, 0)),
    ],
)
def test_operations_against_closed_forms(name: str, edge: int, expected: Callable[[int], OperationCount]) -> None:
    assert count_operations(build(name), C, (edge,) * 3) == expected(edge)


def test_what_no_memory_holds_is_counted_from_shapes() -> None:
    found = count_operations(build("attention"), C, (128, 128, 128))
    assert found == attention(128**3)


def reach(name: str, voxel: tuple[int, int, int], edge: int) -> Tensor:
    """Which voxels what comes out at one of them depends on."""
    features = torch.randn(1, C, edge, edge, edge, dtype=torch.float64, requires_grad=True)
    build(name).double()(features)[0, :, *voxel].sum().backward()
    assert features.grad is not None
    return features.grad[0].abs().amax(0) > 0


def box(edge: int, *sides: tuple[int, int]) -> Tensor:
    inside = torch.zeros(edge, edge, edge, dtype=torch.bool)
    inside[tuple(slice(start, stop) for start, stop in sides)] = True
    return inside


@pytest.mark.parametrize("name", ["mamba_2", "mamba_3", "attention"])
@pytest.mark.parametrize("voxel", [(0, 0, 0), (2, 1, 3), (3, 3, 3)])
def test_each_voxel_hears_of_all(name: str, voxel: tuple[int, int, int]) -> None:
    assert reach(name, voxel, 4).all()


def test_one_direction_hears_of_what_came_before_with_w_fastest() -> None:
    heard = reach("mamba_1", (2, 1, 3), 4).flatten()
    last = 2 * 16 + 1 * 4 + 3
    assert heard[: last + 1].all()
    assert not heard[last + 1 :].any()


def test_nothing_passes_between_windows() -> None:
    assert torch.equal(reach("window_attention_7", (3, 0, 6), 9), box(9, (0, 7), (0, 7), (0, 7)))
    assert torch.equal(reach("window_attention_7", (3, 8, 6), 9), box(9, (0, 7), (7, 9), (0, 7)))
    assert reach("window_attention_7", (0, 0, 0), 6).all()


def test_convolutions_hear_of_their_kernel() -> None:
    assert torch.equal(reach("depthwise_7", (4, 0, 8), 9), box(9, (1, 8), (0, 4), (5, 9)))
    assert torch.equal(reach("conv_3", (4, 0, 8), 9), box(9, (3, 6), (0, 2), (7, 9)))


@pytest.mark.parametrize("name", ["mamba_2", "window_attention_7", "conv_3"])
@pytest.mark.parametrize(("mode", "time"), [("infer", "latency_s"), ("train", "train_step_s")])
def test_what_is_measured(name: str, mode: str, time: str) -> None:
    found = measure_mixer(make_setting(name, mode), make_tools())
    shared = {"parameters", "gmacs", "operations", "time", "memory", "peak_memory_bytes", "energy_j", "voxels_per_s"}
    assert set(found) == {*shared, "tokens", time}
    assert found["tokens"] == 64
    assert found[time] == found["time"]["median_s"] > 0
    assert found["voxels_per_s"] == pytest.approx(2 * 64 / found[time])
    assert found["gmacs"] * 1e9 == pytest.approx(count_operations(build(name), C, (4, 4, 4)).total)
    assert found["parameters"] == sum(parameter.numel() for parameter in build(name).parameters())
    assert set(found["time"]["parts"]) == (set() if mode == "infer" else {"forward", "backward"})
    weights = 4 * found["parameters"]
    assert found["peak_memory_bytes"] >= weights + 2 * 4 * 2 * 64 * C  # what goes in, and what comes out
    if mode == "train":
        assert found["peak_memory_bytes"] > 2 * weights


class Scale(nn.Module):
    """Multiplies by one weight, and remembers how it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(3.0))
        self.kernel = nn.Parameter(torch.zeros(2, 3, 2, 2, 2))  # for its layout alone
        self.features = torch.empty(0)
        self.precisions: set[torch.dtype | None] = set()
        self.modes: set[tuple[bool, bool]] = set()
        self.backward: set[tuple[bool, bool]] = set()

    def forward(self, features: Tensor) -> Tensor:
        if not features.is_meta:
            self.features = features
            self.precisions.add(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None)
            self.modes.add((self.training, torch.is_grad_enabled()))
        scaled = features * self.weight
        if scaled.requires_grad:
            scaled.register_hook(lambda _gradient: self.backward.add(_arithmetic()))
        return scaled


def _arithmetic() -> tuple[bool, bool]:
    return torch.is_autocast_enabled("cpu"), torch.backends.cuda.matmul.allow_tf32


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> Scale:
    mixer = Scale()
    monkeypatch.setitem(MIXERS, "scale", Mixer("Scale", lambda _channels: mixer))  # type: ignore[arg-type]
    return mixer


def test_a_training_pass_is_the_gradient_of_the_sum_and_none_adds_to_the_one_before(scale: Scale) -> None:
    measure_mixer(make_setting("scale", "train"), make_tools())
    assert scale.weight.grad is not None
    assert scale.features.grad is not None
    torch.testing.assert_close(scale.weight.grad, scale.features.detach().sum())
    assert scale.features.grad.unique().tolist() == [3]
    assert scale.modes == {(True, True)}
    assert scale.features.shape == (2, C, 4, 4, 4)


def test_inference_is_without_gradients_in_evaluation(scale: Scale) -> None:
    measure_mixer(make_setting("scale"), make_tools())
    assert scale.modes == {(False, False)}


@pytest.mark.parametrize("mode", ["infer", "train"])
def test_precision_layout_and_compilation_are_those_of_the_setting(
    scale: Scale, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda network: compiled.append(network) or network)
    measure_mixer(make_setting("scale", mode), make_tools())
    assert (scale.precisions, compiled) == ({None}, [])
    assert scale.backward <= {(False, False)}
    assert scale.features.is_contiguous()
    assert scale.kernel.is_contiguous()
    scale.precisions.clear()
    scale.backward.clear()
    changed = make_setting("scale", mode, precision="bf16", channels_last=True, compile=True)
    measure_mixer(changed, make_tools())
    assert (scale.precisions, compiled) == ({torch.bfloat16}, [scale])
    assert scale.backward == ({(False, True)} if mode == "train" else set())
    for tensor in (scale.features, scale.kernel):
        assert tensor.is_contiguous(memory_format=torch.channels_last_3d)


def test_weights_are_those_of_seed_0(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []

    def make(channels: int) -> nn.Module:
        built.append(nn.Conv3d(channels, channels, 1))
        return built[-1]

    monkeypatch.setitem(MIXERS, "drawn", Mixer("Drawn", make))  # type: ignore[arg-type]
    torch.manual_seed(5)
    measure_mixer(make_setting("drawn"), make_tools())
    torch.manual_seed(0)
    assert torch.equal(built[0].weight, nn.Conv3d(C, C, 1).weight)


def test_operators_are_listed_where_asked_for(scale: Scale) -> None:  # noqa: ARG001
    found = measure_mixer(make_setting("scale"), make_tools(operators=1))
    assert found["operators"][0]["name"] == "aten::mul"


@pytest.mark.parametrize(
    ("name", "channels", "message"),
    [
        ("mamba_4", 32, "did you mean 'mamba_"),
        ("conv_3", 40, "conv_3 with 40 channels.*such as 48"),
        ("attention", 0, "such as 16"),
        ("attention", -16, "such as 16"),
    ],
)
def test_what_cannot_be_built_says_so(name: str, channels: int, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        check_mixer(name, channels)
    with pytest.raises(BenchError, match=message):
        measure_mixer(make_setting(name, in_channels=channels), make_tools())


def test_all_can_be_checked_without_what_is_heavy() -> None:
    code = (
        "import sys; from bench.profiling.mixers import MIXERS, check_mixer; "
        "[check_mixer(name, 48) for name in MIXERS]; print({'torch', 'monai', 'models'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_it_is_among_what_can_be_measured() -> None:
    assert MEASURES["mixer"] is measure_mixer
