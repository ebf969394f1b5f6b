"""What holds for every registered network."""

import copy

import pytest
import torch
from torch import Tensor, nn

import models
from models.errors import ModelError

# Options that make a network small enough to test; one that is not named here is tested with its defaults.
NARROW: dict[str, dict[str, object]] = {
    "segmamba": {"feat_size": (8, 16, 24, 32), "depths": (1, 1, 1, 1), "mlp_ratio": 2},
    "segresnet": {"init_filters": 8},
    "unetr": {"feature_size": 8, "hidden_size": 48, "mlp_dim": 96, "num_heads": 4},
}


def build(name: str, *, in_channels: int = 4, out_channels: int = 4, image_size: object = None) -> nn.Module:
    """A narrow network, always the same one, in evaluation mode."""
    torch.manual_seed(0)
    return models.create(
        name,
        in_channels=in_channels,
        out_channels=out_channels,
        image_size=smallest(name) if image_size is None else image_size,
        **NARROW.get(name, {}),
    ).eval()


def smallest(name: str) -> tuple[int, int, int]:
    """The smallest allowed size of at least 32 voxels along each axis."""
    card = models.card(name)
    depth, height, width = (-(-max(32, card.minimum_size) // m) * m for m in card.size_multiples)
    return (depth, height, width)


def images(name: str, batch: int = 1, channels: int = 4) -> Tensor:
    return torch.randn(batch, channels, *smallest(name), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=models.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def network(name: str) -> nn.Module:
    """Shared by the tests of one network, which must not change it."""
    return build(name)


@pytest.fixture(scope="module")
def logits(name: str, network: nn.Module) -> Tensor:
    with torch.no_grad():
        return network(images(name))


class TestModelContract:
    """One line in the registry gives a network all of these tests."""

    def test_card_is_filled_in(self, name: str) -> None:
        card = models.card(name)
        assert card.name == name
        assert card.family in {"state space", "convolution", "transformer"}
        assert 2010 < card.year < 2100
        assert all((card.title, card.paper, card.repository, card.commit, card.licence, card.recipe))
        assert all(sentence.endswith(".") for sentence in card.deviations)

    def test_parameters_are_as_many_as_the_card_says(self, name: str) -> None:
        with torch.device("meta"):
            network = models.create(name, in_channels=4, out_channels=4, image_size=128)
        assert sum(p.numel() for p in network.parameters()) == models.card(name).parameters_4to4

    @pytest.mark.parametrize(("in_channels", "out_channels"), [(1, 3), (4, 14)])
    def test_gives_a_logit_per_class_and_voxel(self, name: str, in_channels: int, out_channels: int) -> None:
        network = build(name, in_channels=in_channels, out_channels=out_channels)
        with torch.no_grad():
            result = network(images(name, batch=2, channels=in_channels))
        assert result.shape == (2, out_channels, *smallest(name))
        assert result.isfinite().all()

    def test_axes_may_differ_in_size(self, name: str) -> None:
        depth, height, width = smallest(name)
        size = (depth, height + models.card(name).size_multiples[1], width)
        with torch.no_grad():
            result = build(name, image_size=size)(torch.zeros(1, 4, *size))
        assert result.shape == (1, 4, *size)

    def test_smallest_size_of_the_card_can_be_trained(self, name: str) -> None:
        card = models.card(name)
        size = tuple(-(-card.minimum_size // m) * m for m in card.size_multiples)
        network = build(name, image_size=size).train()
        network(torch.randn(1, 4, *size)).sum().backward()

    def test_disallowed_size_is_refused_with_the_nearest(self, name: str) -> None:
        depth, height, width = smallest(name)
        with pytest.raises(ModelError, match=f"Nearest: {depth}×{height}×{width} below, "):
            build(name, image_size=(depth, height, width + 1))

    def test_gradient_reaches_every_parameter_and_the_image(self, name: str) -> None:
        network = build(name).train()
        image = images(name, batch=2).requires_grad_()
        weights = torch.randn(2, 4, *smallest(name), generator=torch.Generator().manual_seed(2))
        (network(image) * weights).sum().backward()
        assert image.grad is not None
        assert image.grad.abs().sum() > 0
        for key, parameter in network.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
            assert parameter.grad.any(), key

    def test_float64_is_computed_in_float64(self, name: str, network: nn.Module, logits: Tensor) -> None:
        with torch.no_grad():
            double = copy.deepcopy(network).double()(images(name).double())
        assert double.dtype == torch.float64
        torch.testing.assert_close(double.float(), logits, rtol=1e-3, atol=1e-4 * logits.std().item())

    def test_bf16_autocast_stays_near(self, name: str, network: nn.Module, logits: Tensor) -> None:
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            half = network(images(name))
        assert half.shape == logits.shape
        assert (half.float() - logits).norm() < 0.1 * logits.norm()

    def test_state_dict_carries_the_whole_network(self, name: str, network: nn.Module, logits: Tensor) -> None:
        torch.manual_seed(1)
        other = models.create(
            name, in_channels=4, out_channels=4, image_size=smallest(name), **NARROW.get(name, {})
        ).eval()
        with torch.no_grad():
            assert not torch.allclose(other(images(name)), logits)
            other.load_state_dict(network.state_dict())
            assert torch.equal(other(images(name)), logits)

    def test_seed_decides_the_parameters(self, name: str, network: nn.Module) -> None:
        again = build(name).state_dict()
        assert all(torch.equal(again[key], value) for key, value in network.state_dict().items())

    def test_evaluation_repeats_itself(self, name: str, network: nn.Module, logits: Tensor) -> None:
        with torch.no_grad():
            assert torch.equal(network(images(name)), logits)
