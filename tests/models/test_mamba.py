"""The Mamba layer against its definition, written out token by token."""

import math

import pytest
import torch
from torch import Tensor

from models.mamba import Mamba


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
    import models.mamba

    seen = {}

    def spy(*args: Tensor, **options: object) -> Tensor:
        seen.update(u=args[0].dtype, A=args[2].dtype, D=args[5].dtype, bias=args[7].dtype)
        return scan(*args, **options)

    scan = models.mamba.selective_scan
    monkeypatch.setattr(models.mamba, "selective_scan", spy)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = Mamba(8)(torch.randn(1, 5, 8))
    assert seen == {"u": torch.bfloat16, "A": torch.float32, "D": torch.float32, "bias": torch.float32}
    assert result.dtype == torch.bfloat16
