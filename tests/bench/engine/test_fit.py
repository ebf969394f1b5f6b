"""The trial before a training: micro-batches, memory, recomputation, layouts."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import models
from bench.engine.execution import Execution
from bench.engine.fit import DoesNotFit, _possible, fit
from bench.engine.group import ALONE, Group
from bench.engine.live_memory import peak_tensor_bytes
from bench.engine.recompute import recompute
from bench.engine.step import Step
from bench.errors import BenchError
from data.sampling import Batch

CPU = torch.device("cpu")
MIB = 2**20


def _batch(size: int = 8, channels: int = 1, extent: int = 16) -> Batch:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(size, channels, extent, extent, extent, generator=generator)
    return Batch(image, torch.randint(2, (size, extent, extent, extent), generator=generator))


def _gradients(model: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def _deep() -> nn.Module:
    torch.manual_seed(0)
    blocks = [
        nn.Sequential(nn.Conv3d(4, 4, 3, padding=1), nn.InstanceNorm3d(4), nn.LeakyReLU(), nn.Dropout(0.1))
        for _ in range(8)
    ]
    return nn.Sequential(nn.Conv3d(1, 4, 1), *blocks, nn.Conv3d(4, 2, 1)).train()


def test_live_tensors_are_counted_until_they_are_freed() -> None:
    with peak_tensor_bytes(CPU) as peak:
        one = torch.zeros(1000)
        two = one * 2
        del one
        three = two + 1
        view = three.view(10, 100)[1:]
        del two
        four = view * 2
        del three, view, four
    assert peak() == 8000


@pytest.mark.parametrize("loss", ["cross_entropy", "dice_ce"])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 8])
def test_accumulated_micro_batches_have_the_gradient_of_the_whole(
    make_fields: Callable, make_network: Callable, loss: str, size: int
) -> None:
    fields, batch = make_fields(f"loss={loss}"), _batch()
    whole, parts = make_network(dropout=0.0), make_network(dropout=0.0)
    expected = Step(whole, fields, Execution(8), CPU).accumulate(batch)
    found = Step(parts, fields, Execution(size), CPU).accumulate(batch)
    torch.testing.assert_close(found, expected)
    for one, two in zip(_gradients(parts), _gradients(whole), strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-4)


def test_without_a_limit_the_whole_batch_goes_at_once(make_fields: Callable) -> None:
    assert fit(_deep(), _batch(), make_fields(), CPU, ALONE) == Execution(8)
    assert fit(_deep(), _batch(), make_fields(), CPU, ALONE, most=3) == Execution(3)


def test_less_memory_means_smaller_micro_batches_and_then_recomputation(make_fields: Callable) -> None:
    found = []
    for mib in (100, 12, 7, 3, 2.2):
        execution = fit(_deep(), _batch(), make_fields(f"memory_gib={mib / 1024}"), CPU, ALONE)
        assert 0 < execution.step_memory_bytes <= mib * MIB
        found.append((execution.micro_batch, execution.recomputed_blocks > 0))
    assert found == [(8, False), (4, False), (2, False), (1, False), (2, True)]


def test_what_does_not_fit_says_what_it_takes(make_fields: Callable) -> None:
    with pytest.raises(DoesNotFit, match=r"train\.memory_gib=0\.0001: .* takes .* GiB.*data\.patch_size"):
        fit(_deep(), _batch(), make_fields("memory_gib=0.0001"), CPU, ALONE)


def test_moments_of_the_optimiser_count(make_fields: Callable) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv3d(1, 64, 5, padding=2), nn.Conv3d(64, 2, 5, padding=2))
    weights = sum(p.nbytes for p in model.parameters())
    sizes = {
        name: fit(model, _batch(1, extent=4), make_fields(f"optimiser={name}", "memory_gib=1"), CPU, ALONE)
        for name in ("sgd", "adamw")
    }
    assert sizes["adamw"].step_memory_bytes - sizes["sgd"].step_memory_bytes == weights


@pytest.mark.parametrize("changes", [(), ("memory_gib=1",)])
def test_a_trial_leaves_weights_buffers_gradients_and_random_states(
    make_fields: Callable, changes: tuple[str, ...]
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.BatchNorm3d(2), nn.Dropout(0.5)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    fit(model, _batch(), make_fields(*changes), CPU, ALONE)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())


def test_channels_last_changes_nothing_but_the_layout(make_fields: Callable, make_network: Callable) -> None:
    fields = make_fields("channels_last=true")
    model, plain = make_network(dropout=0.0), make_network(dropout=0.0)
    execution = fit(model, _batch(), fields, CPU, ALONE)
    assert execution.channels_last
    Step(model, fields, execution, CPU).accumulate(_batch())
    Step(plain, make_fields(), Execution(8), CPU).accumulate(_batch())
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
    for one, two in zip(_gradients(model), _gradients(plain), strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-4)


def test_what_a_network_does_not_bear_is_off_and_noted(make_fields: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    class Rigid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv3d(2, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            if not x.is_contiguous():
                raise RuntimeError("needs contiguous input\nand more")
            return self.conv(x)

    def no_compiler(_model: nn.Module) -> nn.Module:
        raise OSError("no compiler here")

    monkeypatch.setattr(torch, "compile", no_compiler)
    fields = make_fields("channels_last=true", "compile=true")
    execution = fit(Rigid().train(), _batch(channels=2), fields, CPU, ALONE)
    assert (execution.channels_last, execution.compile) == (False, False)
    assert execution.notes == ("channels_last is off: needs contiguous input", "compile is off: no compiler here")


def test_batch_normalisation_over_less_than_the_batch_is_noted(make_fields: Callable) -> None:
    model = nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.BatchNorm3d(2)).train()
    fields = make_fields("batch_size=8")
    assert fit(model, _batch(), fields, CPU, ALONE).notes == ()
    assert fit(model, _batch(), fields, CPU, ALONE, most=2).notes == (
        "batch normalisation sees 2 of 8 patches at a time",
    )


def test_parameters_without_a_gradient_are_counted(make_fields: Callable) -> None:
    model = nn.Sequential(nn.Conv3d(1, 2, 1)).train()
    model.spare = nn.Parameter(torch.zeros(3))
    assert fit(model, _batch(), make_fields(), CPU, ALONE).unused_parameters == 1


NARROW = {
    "segmamba_release": {"feat_size": (8, 16, 32, 64)},
    "mednext_s": {"n_channels": 4},
    "segresnet": {"init_filters": 8},
    "uxnet": {"feat_size": (8, 16, 32, 64)},
    "transbts": {"base_channels": 8, "mlp_dim": 64},
}


@pytest.mark.parametrize("name", NARROW)
def test_recomputed_activations_take_less_memory_and_give_the_same_gradient(name: str) -> None:
    torch.manual_seed(0)
    model = models.create(name, in_channels=2, out_channels=3, image_size=32, **NARROW[name]).train()
    image = torch.randn(1, 2, 32, 32, 32)

    def measure() -> tuple[int, list[Tensor]]:
        torch.manual_seed(1)
        model.zero_grad()
        with peak_tensor_bytes(CPU) as peak:
            model(image).square().mean().backward()
        return peak(), _gradients(model)

    usual, expected = measure()
    buffers = [buffer.clone() for buffer in model.buffers()]
    assert recompute(model, lambda: model(image)) > 0
    for buffer, before in zip(model.buffers(), buffers, strict=True):
        buffer.data.copy_(before)
    less, found = measure()
    assert less < 0.95 * usual if name != "transbts" else less <= usual
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-3)


def test_running_statistics_move_once_in_recomputed_networks() -> None:
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv3d(4, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU())
    plain = [nn.Sequential(nn.Conv3d(4, 4, 3, padding=1), nn.InstanceNorm3d(4), nn.ReLU()) for _ in range(3)]
    model = nn.Sequential(nn.Conv3d(1, 4, 1), block, *plain).train()
    image = torch.randn(2, 1, 8, 8, 8)
    means = []
    for again in (False, True):
        block[1].reset_running_stats()
        if again:
            assert recompute(model, lambda: model(image)) == 3
            block[1].reset_running_stats()
        model(image).square().mean().backward()
        means.append(block[1].running_mean.clone())
    assert torch.equal(*means)


def test_recomputation_sleeps_in_evaluation() -> None:
    model = _deep()
    image = torch.randn(1, 1, 8, 8, 8)
    expected = model.eval()(image)
    recompute(model.train(), lambda: model(image))
    with torch.no_grad():
        assert torch.equal(model.eval()(image), expected)


def test_what_lies_beside_a_step_counts(make_fields: Callable) -> None:
    fields = make_fields(f"memory_gib={12 / 1024}")
    alone = fit(_deep(), _batch(), fields, CPU, ALONE)
    beside = fit(_deep(), _batch(), fields, CPU, ALONE, beside=6 * MIB)
    assert beside.micro_batch < alone.micro_batch
    assert 6 * MIB < beside.step_memory_bytes <= 12 * MIB


class _Warns(nn.Module):
    """Says what torch says of an operation on a GPU that has no repeatable form."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv3d(1, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        text = "fold_backward_cuda does not have a deterministic implementation, but you set (and so on)"
        warnings.warn(text, UserWarning, stacklevel=1)
        return self.layer(image)


def test_operations_that_are_not_repeatable_are_noted(make_fields: Callable) -> None:
    (note,) = fit(_Warns().train(), _batch(), make_fields(), CPU, ALONE).notes
    assert note == "not repeatable to the bit on this device: fold_backward_cuda"


def test_deep_supervision_of_a_network_with_one_output_is_noted(make_fields: Callable) -> None:
    (note,) = fit(_deep(), _batch(), make_fields("deep_supervision=true"), CPU, ALONE).notes
    assert "one output" in note


@pytest.mark.parametrize(("precision", "words"), [("fp16", "few CPUs compute in fp16"), ("bf16", ""), ("fp32", "")])
def test_what_a_cpu_is_slow_in_is_noted(make_fields: Callable, precision: str, words: str) -> None:
    notes = fit(_deep(), _batch(), make_fields(f"precision={precision}"), CPU, ALONE).notes
    assert bool(notes) == bool(words)
    assert all(words in note for note in notes)


def test_what_needs_a_gpu_is_off_without_one_and_noted(make_fields: Callable, make_network: Callable) -> None:
    model = make_network()
    execution = fit(model, _batch(), make_fields("fused=true", "graph=true"), CPU, ALONE)
    assert (execution.fused, execution.graph) == (False, False)
    assert execution.notes == ("fused is off: it needs a GPU", "graph is off: it needs a GPU")
    assert [type(layer) for layer in model] == [type(layer) for layer in make_network()]


def test_a_graph_is_not_for_processes_that_share_a_batch_nor_for_a_fit_to_memory(make_fields: Callable) -> None:
    cuda = torch.device("cuda")
    for fields, group, words in [
        (make_fields("graph=true"), Group(0, 2), "speak with each other"),
        (make_fields("graph=true", "memory_gib=1"), ALONE, "train.memory_gib"),
    ]:
        with pytest.raises(BenchError, match=words):
            _possible("graph", fields, cuda, group)


def test_a_step_exchanges_layers_where_they_are_to_be_fused(make_fields: Callable, make_network: Callable) -> None:
    """And its result is that of the layers themselves."""
    model, plain = make_network(dropout=0.0), make_network(dropout=0.0)
    Step(model, make_fields(), Execution(8, fused=True), CPU).accumulate(_batch())
    Step(plain, make_fields(), Execution(8), CPU).accumulate(_batch())
    assert type(model[1]) is not nn.InstanceNorm3d
    for one, two in zip(_gradients(model), _gradients(plain), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("regions", [(), ((0, 1), (1,))], ids=["classes", "regions"])
def test_on_a_gpu_replayed_and_fused_steps_lead_to_the_same_weights(
    make_fields: Callable, make_network: Callable, regions: tuple[tuple[int, ...], ...]
) -> None:
    """Rounding aside; the passes before a graph's recording leave no trace."""
    device = torch.device("cuda")
    weights = []
    for execution in (Execution(8), Execution(8, channels_last=True, fused=True, graph=True)):
        model = make_network(dropout=0.0).to(device)
        step = Step(model, make_fields("loss=dice_ce"), execution, device, regions=regions)
        batch = _batch()
        on_device = Batch(batch.image.to(device), batch.label.to(device))
        for _ in range(3):
            step(on_device, 0.05)
        weights.append([p.detach().clone() for p in model.parameters()])
    for one, two in zip(*weights, strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-3)
