"""What holds for every registered network."""

import copy
from fnmatch import fnmatch

import pytest
import torch
from torch import Tensor, nn

import models
from bench.profiling.operations import count_operations
from models.errors import ModelError
from models.fusion import fuse
from models.registry import published

# Options that make a network small enough to test; one that is not named here is tested with its defaults.
_FOUR_SCALES = {"feat_size": (8, 16, 24, 32), "depths": (1, 1, 1, 1)}
_SIX_STAGES = {"feat_size": (4, 8, 8, 8, 12, 12)}
NARROW: dict[str, dict[str, object]] = {
    "mednext_s": {"n_channels": 4},
    "mednext_b": {"n_channels": 4},
    "mednext_m": {"n_channels": 4},
    "mednext_l": {"n_channels": 4},
    "nnformer": {"embedding_dim": 24},
    "nnunet": _SIX_STAGES,
    "nnunet_resenc": {**_SIX_STAGES, "n_blocks_per_stage": (1, 2, 2, 2, 2, 2)},
    "segmamba": {**_FOUR_SCALES, "mlp_ratio": 2},
    "segmamba_2024_01": _FOUR_SCALES,
    "segmamba_2024_03": _FOUR_SCALES,
    "segmamba_release": _FOUR_SCALES,
    "segresnet": {"init_filters": 8},
    "swinunetr": {"feature_size": 12},
    "swinunetr_v2": {"feature_size": 12},
    "transbts": {"base_channels": 8, "mlp_dim": 64, "num_layers": 2},
    "umamba_bot": _SIX_STAGES,
    "umamba_enc": _SIX_STAGES,
    "unetr": {"feature_size": 8, "hidden_size": 48, "mlp_dim": 96, "num_heads": 4},
    "uxnet": _FOUR_SCALES,
}

# At 32³ nnFormer's last stage is a single token, which attends to itself whatever the weights are.
LEAST = {"nnformer": 64}

# Stochastic depth leaves out some branch for an image, which nothing reaches then.
BATCH = {"nnformer": 2}

# With no residual around its Mamba layers, U-Mamba Enc doubles any rounding error from stage to stage, in its authors'
# arithmetic too; that bf16 stays near fp32 cannot be asked of it.
ROUNDING = {"umamba_enc": (3e-2, 2.0)}


def build(
    name: str, *, in_channels: int = 4, out_channels: int = 4, image_size: object = None, **options: object
) -> nn.Module:
    """A narrow network, always the same one, in evaluation mode."""
    torch.manual_seed(0)
    return models.create(
        name,
        in_channels=in_channels,
        out_channels=out_channels,
        image_size=smallest(name) if image_size is None else image_size,
        **NARROW.get(name, {}),
        **options,
    ).eval()


def smallest(name: str) -> tuple[int, int, int]:
    """The smallest allowed size of at least 32 voxels along each axis, or the one in `LEAST`."""
    card = models.card(name)
    depth, height, width = (-(-max(LEAST.get(name, 32), card.minimum_size) // m) * m for m in card.size_multiples)
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

    def test_card_counts_parameters_and_operations(self, name: str) -> None:
        card = models.card(name)
        network = models.create(name, in_channels=4, out_channels=4, image_size=128)
        assert sum(p.numel() for p in network.parameters()) == card.parameters_4to4
        if card.gmacs_128 is not None:
            found = count_operations(network, 4, (128, 128, 128))
            assert (found.convolution + found.matrix_product) / 1e9 == pytest.approx(card.gmacs_128, abs=0.006)
            assert found.scan / 1e9 == pytest.approx(card.scan_gmacs_128, abs=0.006)

    def test_every_tensor_has_a_name_of_its_own_in_the_authors_files(self, name: str, network: nn.Module) -> None:
        names = published(name)
        theirs = [names.name(key) for key in network.state_dict()]
        assert len(set(theirs)) == len(theirs)
        assert all(names.plain(key) == key for key in theirs)

    @pytest.mark.parametrize(("batch", "in_channels", "out_channels"), [(1, 1, 3), (2, 4, 14)])
    def test_gives_a_logit_per_class_and_voxel(
        self, name: str, batch: int, in_channels: int, out_channels: int
    ) -> None:
        network = build(name, in_channels=in_channels, out_channels=out_channels)
        with torch.no_grad():
            result = network(images(name, batch=batch, channels=in_channels))
        assert result.shape == (batch, out_channels, *smallest(name))
        assert result.isfinite().all()

    def test_axes_may_differ_in_size(self, name: str) -> None:
        depth, height, width = smallest(name)
        size = (depth, height, 2 * width)
        with torch.no_grad():
            result = build(name, image_size=size)(torch.zeros(1, 4, *size))
        assert result.shape == (1, 4, *size)

    def test_images_of_another_size_than_a_fixed_network_was_built_for_are_refused(
        self, name: str, network: nn.Module
    ) -> None:
        if not models.card(name).fixed_size:
            return
        depth, height, width = smallest(name)
        with pytest.raises(
            ModelError, match=f"built for images of {depth}×{height}×{width}.*got 1×4×{depth}×{height}×"
        ):
            network(torch.zeros(1, 4, depth, height, width + 4))
        with pytest.raises(ModelError, match=f"got 4×{depth}×{height}×{width}"):
            network(torch.zeros(4, depth, height, width))

    def test_smallest_size_of_the_card_can_be_trained(self, name: str) -> None:
        card = models.card(name)
        size = tuple(-(-card.minimum_size // m) * m for m in card.size_multiples)
        network = build(name, image_size=size).train()
        network(torch.randn(1, 4, *size)).sum().backward()

    def test_disallowed_size_is_refused_with_the_nearest(self, name: str) -> None:
        if models.card(name).size_multiples[2] == 1:
            assert models.card(name).minimum_size >= 1
            return
        depth, height, width = smallest(name)
        with pytest.raises(ModelError, match=f"Nearest: {depth}×{height}×{width} below, "):
            build(name, image_size=(depth, height, width + 1))

    def test_gradient_reaches_every_parameter_and_the_image(self, name: str) -> None:
        network = build(name).train()
        for parameter in network.parameters():
            if not parameter.any():  # such as a norm that closes its branch at the beginning
                nn.init.normal_(parameter, std=0.1)
        image = images(name, BATCH.get(name, 1)).requires_grad_()
        weights = torch.randn(len(image), 4, *smallest(name), generator=torch.Generator().manual_seed(2))
        (network(image) * weights).sum().backward()
        assert image.grad is not None
        assert image.grad.abs().sum() > 0
        unused = models.card(name).unused
        for key, parameter in network.named_parameters():
            if any(fnmatch(key, pattern) for pattern in unused):
                # Distributed training takes a parameter that wants a gradient and gets none for an error.
                assert not parameter.requires_grad, key
                continue
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
            assert parameter.grad.any(), key

    def test_unused_parameters_of_the_card_are_there(self, name: str, network: nn.Module) -> None:
        keys = [key for key, _ in network.named_parameters()]
        for pattern in models.card(name).unused:
            assert any(fnmatch(key, pattern) for key in keys), pattern

    def test_deep_supervision_gives_halved_logits_in_training_alone(self, name: str) -> None:
        if "deep_supervision" not in models.options(name):
            with pytest.raises(ModelError, match="option 'deep_supervision' is unknown"):
                build(name, deep_supervision=True)
            return
        network = build(name, deep_supervision=True)
        image = images(name, batch=2)
        with torch.no_grad():
            assert network(image).shape == (2, 4, *smallest(name))
        outputs = network.train()(image)
        assert len(outputs) > 2
        for level, output in enumerate(outputs):
            assert output.shape == (2, 4, *(extent >> level for extent in smallest(name)))
        sum((output * torch.randn_like(output)).sum() for output in outputs).backward()
        for key, parameter in network.named_parameters():
            assert not parameter.requires_grad or parameter.grad is not None, key

    def test_float64_is_computed_in_float64(self, name: str, network: nn.Module, logits: Tensor) -> None:
        with torch.no_grad():
            double = copy.deepcopy(network).double()(images(name).double())
        assert double.dtype == torch.float64
        allowed, _ = ROUNDING.get(name, (1e-4, 0.1))
        assert (double.float() - logits).norm() < allowed * logits.norm()

    def test_bf16_autocast_stays_near(self, name: str, network: nn.Module, logits: Tensor) -> None:
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            half = network(images(name))
        assert half.shape == logits.shape
        _, allowed = ROUNDING.get(name, (1e-4, 0.1))
        assert (half.float() - logits).norm() < allowed * logits.norm()

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

    def test_exchanged_layers_compute_the_same(self, name: str, network: nn.Module, logits: Tensor) -> None:
        """Values, gradients of all weights, and the weights' names; what layers are fused is no matter."""
        fused = copy.deepcopy(network)
        fuse(fused)
        assert list(fused.state_dict()) == list(network.state_dict())
        weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))
        gradients = []
        for one in (fused, network):
            one.zero_grad()
            result = one(images(name))
            torch.testing.assert_close(result, logits, rtol=1e-3, atol=1e-3 * logits.abs().max().item())
            (result * weights).sum().backward()
            gradients.append(torch.cat([p.grad.flatten() for p in one.parameters() if p.grad is not None]))
            one.zero_grad()
        allowed, _ = ROUNDING.get(name, (1e-3, 0.1))
        assert (gradients[0] - gradients[1]).norm() < allowed * gradients[1].norm()

    def test_evaluation_repeats_itself(self, name: str, network: nn.Module, logits: Tensor) -> None:
        with torch.no_grad():
            assert torch.equal(network(images(name)), logits)
