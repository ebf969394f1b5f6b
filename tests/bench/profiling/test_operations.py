"""Counts of operations against closed forms."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import _disable_current_modes

from bench.profiling.operations import UNSEEN, OperationCount, count_operations, scan_flops
from models.mamba import Mamba, MultiOrderMamba
from models.ops import selective_scan

SIZE = (6, 8, 10)
VOXELS = 480


@pytest.mark.parametrize(
    ("layer", "macs"),
    [
        (nn.Conv3d(4, 6, 3, padding=1), VOXELS * 6 * 4 * 27),
        (nn.Conv3d(4, 8, 3, padding=1, groups=2), VOXELS * 8 * 2 * 27),
        (nn.Conv3d(4, 4, 7, padding=3, groups=4), VOXELS * 4 * 343),
        (nn.Conv3d(4, 6, 2, stride=2), VOXELS // 8 * 6 * 4 * 8),
        (nn.ConvTranspose3d(4, 6, 2, stride=2), VOXELS * 4 * 6 * 8),
    ],
)
def test_convolutions_dense_grouped_depthwise_strided_and_transposed(layer: nn.Module, macs: int) -> None:
    assert count_operations(layer, 4, SIZE) == OperationCount(convolution=macs, matrix_product=0, scan=0)
    assert count_operations(layer, 4, SIZE, batch=3).convolution == 3 * macs


class Attention(nn.Module):
    """Self-attention over voxels with two heads, fused or spelt out."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.project = nn.Linear(4, 12, bias=False)
        self.fused = fused

    def forward(self, image: Tensor) -> Tensor:
        q, k, v = self.project(image.flatten(2).mT).unflatten(-1, (3, 2, 2)).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v) if self.fused else (q @ k.mT).softmax(-1) @ v


@pytest.mark.parametrize("fused", [True, False])
def test_attention_counts_both_products_over_all_pairs_of_tokens(fused: bool) -> None:
    found = count_operations(Attention(fused), 4, SIZE)
    assert found.matrix_product == VOXELS * 4 * 12 + 2 * VOXELS * VOXELS * 4


class Scan(nn.Module):
    """A selective scan over voxels with constant projections."""

    def __init__(self, skip: bool, gate: bool) -> None:
        super().__init__()
        self.skip, self.gate = skip, gate

    def forward(self, image: Tensor) -> Tensor:
        u = image.flatten(2)
        B = u.new_ones(len(u), 5, u.shape[-1])
        D = u.new_ones(4) if self.skip else None
        return selective_scan(u, u, u.new_ones(4, 5), B, C=B, D=D, z=u if self.gate else None)


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("gate", [True, False])
def test_scans_count_nine_operations_per_state(skip: bool, gate: bool) -> None:
    found = count_operations(Scan(skip, gate), 4, SIZE, batch=2)
    flops = 2 * 4 * VOXELS * (9 * 5 + skip + gate)
    assert found == OperationCount(0, 0, flops // 2)
    assert scan_flops(2, 4, VOXELS, 5, skip=skip, gate=gate) == flops
    assert found.total == flops // 2


def test_a_layer_of_three_orders_counts_three_scans() -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mamba = MultiOrderMamba(4, ("forward", "backward", "slices"), 0, d_state=3, d_conv=4, expand=2)

        def forward(self, image: Tensor) -> Tensor:
            return self.mamba(image.flatten(2).mT, image.shape[2:])

    found = count_operations(Layer(), 4, SIZE)
    inner, rank = 8, 1
    assert found.scan == 3 * inner * VOXELS * (9 * 3 + 2) // 2
    assert found.convolution == 3 * inner * 4 * VOXELS
    assert found.matrix_product == VOXELS * (4 * 2 * inner + 3 * inner * (rank + 6) + 3 * rank * inner + inner * 4)


def test_operators_without_a_formula_are_listed_and_the_others_are_not() -> None:
    layers = nn.Sequential(nn.Conv3d(4, 4, 3, padding=1), nn.InstanceNorm3d(4), nn.GELU(), nn.Flatten(2))
    found = count_operations(layers, 4, SIZE, batch=2)
    assert list(found.uncounted) == ["native_batch_norm", "gelu"]  # the norm gives its statistics too
    assert found.uncounted["gelu"] == 2 * 4 * VOXELS
    assert list(count_operations(nn.Conv3d(4, 4, 1), 4, SIZE).uncounted) == []


class Peeking(nn.Module):
    """A convolution that looks at values, and what comes out of an extension that no mode of PyTorch sees."""

    def __init__(self, hidden: bool) -> None:
        super().__init__()
        self.layer = nn.Conv3d(4, 4, 1)
        self.scale = torch.full((4, 1, 1, 1), 2.0)  # no buffer, as some authors keep constants
        self.hidden = hidden

    def forward(self, image: Tensor) -> Tensor:
        features = self.layer(image) * self.scale
        if features.abs().sum().item() < 0 or not self.hidden:
            return features
        with _disable_current_modes():
            made = features * 2
        return made + 1


@pytest.mark.parametrize("hidden", [True, False])
def test_a_network_that_looks_at_values_is_counted_and_what_nobody_sees_is_told(hidden: bool) -> None:
    network = Peeking(hidden).train()
    found = count_operations(network, 4, SIZE)
    assert found.convolution == VOXELS * 4 * 4
    assert found.uncounted.get(UNSEEN, 0) == (4 * VOXELS if hidden else 0)
    assert network.training


def test_a_fault_of_the_network_is_not_hidden() -> None:
    class Faulty(nn.Module):
        def forward(self, _image: Tensor) -> Tensor:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        count_operations(Faulty(), 4, SIZE)


def test_counting_leaves_the_network_as_it_was() -> None:
    network = nn.Sequential(nn.Conv3d(4, 4, 3, padding=1), nn.BatchNorm3d(4)).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    count_operations(network, 4, SIZE)
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_a_mode_sees_the_scan_and_the_scan_computes_without_one() -> None:
    torch.manual_seed(0)
    layer = Mamba(4, 3)
    x = torch.randn(1, 9, 4)
    with torch.device("cpu"):  # a mode of PyTorch's own, which changes nothing
        torch.testing.assert_close(layer(x), layer(x))
    assert layer(x).any()
