"""The arithmetic of a pass, and of what surrounds it."""

from __future__ import annotations

import pytest
import torch

from bench.engine.precision import arithmetic

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("precision", "dtype", "short"),
    [
        ("fp32", torch.float32, False),
        ("tf32", torch.float32, True),
        ("bf16", torch.bfloat16, True),
        ("fp16", torch.float16, True),
    ],
)
def test_a_pass_is_computed_as_asked_and_nothing_stays(precision: str, dtype: torch.dtype, short: bool) -> None:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    with arithmetic(precision, CPU):  # type: ignore[arg-type]
        assert torch.nn.functional.linear(torch.ones(2, 2), torch.ones(2, 2)).dtype == dtype
        assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == (short, short)
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == before
    assert torch.nn.functional.linear(torch.ones(2, 2), torch.ones(2, 2)).dtype == torch.float32


def test_an_outer_autocast_does_not_reach_into_single_precision() -> None:
    with torch.autocast("cpu", torch.bfloat16), arithmetic("fp32", CPU):
        assert torch.nn.functional.linear(torch.ones(2, 2), torch.ones(2, 2)).dtype == torch.float32
