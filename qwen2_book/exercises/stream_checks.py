"""What right answers to the exercises of chapter 03 do: each check raises AssertionError if not."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from qwen2_book.config import Qwen2Config
from qwen2_book.costs import parameters
from qwen2_book.model import Qwen2
from qwen2_book.trace import residual_states

Norm = Callable[[Tensor, Tensor, float], Tensor]  # (x, weight, eps)


def saved_by_tying() -> float:
    """Percent of Qwen2-7B's parameters that a tied head would save."""
    counts = parameters(Qwen2Config.named("Qwen2-7B"))
    return 100 * counts["head"] / counts["total"]


def length_at_eps() -> float:
    """The root mean square of a normed vector whose own is 0.001, with eps 1e-6."""
    return float((1e-6 / (1e-6 + 1e-6)) ** 0.5)


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm as Qwen2 has it: squares in float32, cast back, then the weight."""
    wide = x.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return weight * (wide * scale).to(x.dtype)


# 03-3: fuse(norm_weight, linear_weight)


def _case() -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(5, 12, generator=draw)
    return x, torch.randn(12, generator=draw), torch.randn(7, 12, generator=draw)


def fused_shape(fuse: Callable) -> None:
    """The fused matrix has the linear layer's shape, for a square one and for others."""
    _, weight, linear = _case()
    assert fuse(weight, linear).shape == linear.shape
    assert fuse(weight, linear[:1]).shape == (1, 12)


def fused_outputs(fuse: Callable) -> None:
    """A norm without weight, then the fused layer, gives what norm and layer gave."""
    x, weight, linear = _case()
    square = torch.randn(12, 12, generator=torch.Generator().manual_seed(4))
    for matrix in (linear, square):
        expected = F.linear(norm(x, weight, 1e-6), matrix)
        found = F.linear(norm(x, torch.ones(12), 1e-6), fuse(weight, matrix))
        assert torch.allclose(found, expected, atol=1e-4)


def fused_apart(fuse: Callable) -> None:
    """The weights that went in are what they were."""
    _, weight, linear = _case()
    before = weight.clone(), linear.clone()
    fuse(weight, linear)
    assert torch.equal(weight, before[0])
    assert torch.equal(linear, before[1])


# 03-4: trusts(norm), a test of norms; it says True for a good one


def cast_late(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Up-cast, and cast back after the weight: one rounding less than Qwen2, and no fault here."""
    wide = x.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (weight.float() * wide * scale).to(x.dtype)


def no_upcast(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Everything in the input's own dtype; PyTorch's sum still runs in float32 inside."""
    return weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps))


def running_sum(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """No up-cast, and a sum that is rounded after every number, as a kernel written by hand."""
    total = torch.zeros_like(x[..., 0])
    for number in x.unbind(-1):
        total = total + number * number
    return weight * (x * torch.rsqrt(total[..., None] / x.shape[-1] + eps))


def wide_sum_only(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Squares in the input's dtype, their mean in float32: the cast comes one step too late."""
    scale = torch.rsqrt(x.square().float().mean(-1, keepdim=True) + eps)
    return weight * (x.float() * scale).to(x.dtype)


def verdicts(expected: bool, *norms: Norm) -> Callable:
    """The reader's test says `expected` of each of these norms."""

    def holds(trusts: Callable) -> None:
        for each in norms:
            try:
                said = bool(trusts(each))
            except AssertionError:  # a test may also complain by asserting
                said = False
            assert said is expected

    return holds


# 03-5: step(x, weight, eps, layer): one addition to the stream


def _stream(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(5)
    x = torch.randn(2, 3, 64, generator=draw)
    return x.to(dtype), torch.randn(64, generator=draw).to(dtype)


def _read(step: Callable, x: Tensor, weight: Tensor) -> Tensor:
    """What the layer gets to read."""
    seen: list[Tensor] = []

    def layer(normed: Tensor) -> Tensor:
        seen.append(normed.clone())
        return normed

    step(x, weight, 1e-6, layer)
    return seen[0]


def step_keeps(step: Callable) -> None:
    """The stream that went in is untouched, and the output is its sum with what was added."""
    x, weight = _stream()
    before = x.clone()
    out = step(x, weight, 1e-6, lambda normed: torch.zeros_like(normed))
    assert torch.equal(x, before)
    assert torch.equal(out, before)


def step_eps(step: Callable) -> None:
    """A vector of 0.001 comes out of the norm with 0.7071: eps stands inside the root."""
    small = torch.full((1, 1, 64), 1e-3)
    seen = _read(step, small, torch.ones(64))
    assert torch.allclose(seen, torch.full((1, 1, 64), 0.5**0.5), atol=1e-4)


def step_wide(step: Callable) -> None:
    """A float16 vector with a number of 1,000 is normed, not lost."""
    x, weight = _stream(torch.float16)
    x[..., 0] = 1000.0
    seen = _read(step, x.clone(), weight)
    expected = norm(x, weight, 1e-6)
    assert torch.allclose(seen.float(), expected.float(), atol=1e-3, rtol=1e-2)


def step_dtype(step: Callable) -> None:
    """The stream keeps its dtype, and so does what the layer gets."""
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        x, weight = _stream(dtype)
        assert step(x, weight, 1e-6, lambda normed: normed).dtype == dtype
        assert _read(step, x, weight).dtype == dtype


# 03-6: writes(model, ids): what each layer adds to each token


def _toy() -> tuple[Qwen2, Tensor]:
    config = Qwen2Config(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        initializer_range=0.3,
    )
    state = torch.random.get_rng_state()
    torch.manual_seed(6)
    model = Qwen2(config)
    torch.random.set_rng_state(state)
    return model, torch.tensor([[3, 14, 15, 9, 2]])


def _writes(writes: Callable) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    model, ids = _toy()
    attention, feed_forward = (torch.as_tensor(each).detach() for each in writes(model, ids))
    return attention, feed_forward, residual_states(model, ids), ids


def writes_shape(writes: Callable) -> None:
    """Two tensors (layers, batch, seq, hidden)."""
    attention, feed_forward, _, _ = _writes(writes)
    assert attention.shape == feed_forward.shape == (3, 1, 5, 16)


def writes_each(writes: Callable) -> None:
    """Each of the additions is the difference of two states of the stream."""
    attention, feed_forward, states, _ = _writes(writes)
    added = states.diff(dim=0)
    assert torch.allclose(attention, added[::2], atol=1e-5)
    assert torch.allclose(feed_forward, added[1::2], atol=1e-5)


def writes_clean(writes: Callable) -> None:
    """No hook is left behind on the model."""
    model, ids = _toy()
    writes(model, ids)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
