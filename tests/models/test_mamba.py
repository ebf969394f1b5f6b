"""Mamba layers against their definitions, written out token by token and order by order."""

import math

import pytest
import torch
from torch import Tensor

from models.errors import ModelError
from models.mamba import CrossScanMamba, Mamba, MultiOrderMamba, SelectiveSSM
from models.ops import BACKWARD, FORWARD, Order, mixer


def by_definition(layer: Mamba, tokens: Tensor) -> Tensor:
    """The layer in nothing but sums and products, one sequence at a time."""
    inner, states = layer.A_log.shape
    kernel = layer.conv1d.weight.shape[-1]
    rank = layer.dt_proj.weight.shape[1]
    results = []
    for sequence in tokens:
        x, z = (sequence @ layer.in_proj.weight.T).split(inner, dim=1)
        state = torch.zeros(inner, states, dtype=tokens.dtype)
        outputs = []
        for t in range(len(sequence)):
            mixed = layer.conv1d.bias.clone()
            for lag in range(min(kernel, t + 1)):
                mixed = mixed + layer.conv1d.weight[:, 0, kernel - 1 - lag] * x[t - lag]
            u = mixed * torch.sigmoid(mixed)
            low, B, C = (layer.x_proj.weight @ u).split((rank, states, states))
            step = torch.log1p(torch.exp(layer.dt_proj.weight @ low + layer.dt_proj.bias))
            state = torch.exp(-step[:, None] * torch.exp(layer.A_log)) * state
            state = state + step[:, None] * B[None, :] * u[:, None]
            y = (state * C).sum(1) + layer.D * u
            outputs.append(layer.out_proj.weight @ (y * z[t] * torch.sigmoid(z[t])))
        results.append(torch.stack(outputs))
    return torch.stack(results)


@pytest.mark.parametrize(("dim", "d_state", "d_conv", "expand"), [(20, 16, 4, 2), (6, 3, 2, 3)])
def test_equals_its_definition(dim: int, d_state: int, d_conv: int, expand: int) -> None:
    torch.manual_seed(0)
    layer = Mamba(dim, d_state, d_conv, expand).double()
    tokens = torch.randn(2, 9, dim, dtype=torch.float64)
    torch.testing.assert_close(layer(tokens), by_definition(layer, tokens))


def test_token_depends_on_itself_and_those_before_it() -> None:
    torch.manual_seed(0)
    layer = Mamba(8)
    tokens = torch.randn(1, 12, 8)
    changed = tokens.clone()
    changed[0, 7] += 1
    difference = (layer(changed) - layer(tokens))[0].abs().amax(dim=1)
    assert (difference[:7] == 0).all()
    assert (difference[7:] > 0).all()


def test_parameters_are_those_of_mamba_ssm() -> None:
    shapes = {key: tuple(value.shape) for key, value in Mamba(40).state_dict().items()}
    assert shapes == {
        "A_log": (80, 16),
        "D": (80,),
        "in_proj.weight": (160, 40),
        "conv1d.weight": (80, 1, 4),
        "conv1d.bias": (80,),
        "x_proj.weight": (35, 80),
        "dt_proj.weight": (80, 3),
        "dt_proj.bias": (80,),
        "out_proj.weight": (40, 80),
    }


def test_initial_step_sizes_are_log_uniform() -> None:
    """softplus(bias) lies in [1e-3, 0.1], its logarithm centred there; the decay rates are 1 to N."""
    torch.manual_seed(0)
    layer = Mamba(1024)
    steps = torch.nn.functional.softplus(layer.dt_proj.bias)
    assert steps.min() >= 1e-3 * 0.999
    assert steps.max() <= 0.1 * 1.001
    assert steps.log10().mean().item() == pytest.approx(-2, abs=0.05)
    assert steps.log10().std().item() == pytest.approx(2 / math.sqrt(12), abs=0.03)
    assert layer.dt_proj.weight.abs().max() <= 64**-0.5
    assert layer.dt_proj.weight.std().item() == pytest.approx(64**-0.5 / math.sqrt(3), rel=0.02)
    torch.testing.assert_close(layer.A_log.exp(), torch.arange(1.0, 17).expand(2048, 16))
    assert (layer.D == 1).all()


def test_autocast_keeps_the_scan_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decay rates and bias reach the scan unrounded, and the layer's result is in the autocast dtype."""
    seen = {}

    def spy(*args: Tensor, **options: object) -> Tensor:
        seen.update(u=args[0].dtype, A=args[2].dtype, D=args[5].dtype, bias=args[7].dtype)
        return scan(*args, **options)

    scan = mixer.scan_orders
    monkeypatch.setattr(mixer, "scan_orders", spy)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = Mamba(8)(torch.randn(1, 5, 8))
    assert seen == {"u": torch.bfloat16, "A": torch.float32, "D": torch.float32, "bias": torch.float32}
    assert result.dtype == torch.bfloat16


@pytest.mark.parametrize("order", [FORWARD, BACKWARD, Order("slices", 4)])
def test_reordering_is_undone(order: Order) -> None:
    sequence = torch.randn(2, 24, 3)
    assert torch.equal(order.put_back(order.take(sequence)), sequence)


@pytest.mark.parametrize(
    ("order", "visited"),
    [
        (FORWARD, [0, 1, 2, 3, 4, 5]),
        (BACKWARD, [5, 4, 3, 2, 1, 0]),
        (Order("slices", 2), [0, 3, 1, 4, 2, 5]),  # the first of each slice of three, then the second, then the third
    ],
)
def test_orders_visit_the_tokens_as_they_say_and_as_their_arithmetic_says(order: Order, visited: list[int]) -> None:
    assert order.take(torch.arange(6).view(1, 6, 1)).flatten().tolist() == visited
    walk = order.walk(6)
    steps = range(6)
    assert [walk.origin + t % walk.run * walk.within + t // walk.run * walk.across for t in steps] == visited


def test_orders_that_cannot_be_are_refused() -> None:
    with pytest.raises(ModelError, match="forward, backward, slices; got 'sideways'"):
        Order("sideways")
    with pytest.raises(ModelError, match="6 tokens do not make 4 slices"):
        Order("slices", 4).take(torch.zeros(1, 6, 1))


@pytest.mark.parametrize("num_slices", [0, 4])
def test_orders_are_summed_each_with_parameters_of_its_own(num_slices: int) -> None:
    """By the definition: single-order layers that share the projections, run on permuted tokens and put back."""
    torch.manual_seed(0)
    depth, height, width = size = (2, 4, 3)
    layer = MultiOrderMamba(8, ("forward", "backward", "slices"), num_slices, d_state=3, d_conv=4, expand=2).double()
    tokens = torch.randn(2, 24, 8, dtype=torch.float64)
    slices = num_slices or depth
    runs = torch.arange(24).view(slices, 24 // slices)
    visits = {"forward": torch.arange(24), "backward": torch.arange(24).flip(0), "slices": runs.T.flatten()}
    total = torch.zeros_like(tokens)
    for order, ssm in zip(layer.orders, layer.ssms, strict=True):
        single = Mamba(8, 3, 4, 2).double()
        own = {**ssm.state_dict(), "in_proj.weight": layer.in_proj.weight, "out_proj.weight": layer.out_proj.weight}
        single.load_state_dict(own)
        total[:, visits[order]] += single(tokens[:, visits[order]])
    torch.testing.assert_close(layer(tokens, size), total)
    assert height * width == 12


def test_orders_but_the_first_start_with_large_steps() -> None:
    """The published code leaves the other orders' step sizes to the linear layer's own initialisation."""
    torch.manual_seed(0)
    layer = MultiOrderMamba(64, ("forward", "backward", "slices"), 0, 16, 4, 2)
    first, *others = (torch.nn.functional.softplus(ssm.dt_proj.bias) for ssm in layer.ssms)
    assert first.max() < 0.11
    for steps in others:
        assert steps.min() > 0.4
        assert steps.mean().item() == pytest.approx(math.log(2), abs=0.1)


def test_cross_scan_runs_along_each_axis_both_ways() -> None:
    """By the definition: voxels listed one by one with each axis fastest, scanned, put back, summed, normalised."""
    torch.manual_seed(0)
    depth, height, width = size = (2, 3, 4)
    layer = CrossScanMamba(6, d_state=3, expand=2).double()
    tokens = torch.randn(2, 24, 6, dtype=torch.float64)
    x, z = (tokens @ layer.in_proj.weight.T).chunk(2, dim=-1)
    volume = x.mT.reshape(2, 12, *size)
    volume = torch.nn.functional.silu(
        torch.nn.functional.conv3d(volume, layer.conv3d.weight, layer.conv3d.bias, padding=1, groups=12)
    )
    D, H, W = (range(extent) for extent in size)
    listings = [
        [(d, h, w) for d in D for h in H for w in W],
        [(d, h, w) for d in D for w in W for h in H],
        [(d, h, w) for h in H for w in W for d in D],
    ]
    total = torch.zeros_like(volume)
    scans = iter(layer.scans)
    for listing in listings:
        for voxels in (listing, listing[::-1]):
            ssm = next(scans)
            assert isinstance(ssm, SelectiveSSM)
            y = ssm.scan(torch.stack([volume[:, :, d, h, w] for d, h, w in voxels], dim=-1))
            for position, (d, h, w) in enumerate(voxels):
                total[:, :, d, h, w] += y[..., position]
    mixed = torch.nn.functional.layer_norm(total.flatten(2).mT, (12,), layer.norm.weight, layer.norm.bias)
    expected = (mixed * torch.nn.functional.silu(z)) @ layer.out_proj.weight.T
    torch.testing.assert_close(layer(tokens, size), expected)
    assert depth * height * width == tokens.shape[1]
