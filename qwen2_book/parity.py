"""The parity ladder: two models side by side, and the name of the first tensor that differs."""

import argparse
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from qwen2_book.checkpoint.layout import shapes
from qwen2_book.config import Qwen2Config, RopeScaling
from qwen2_book.loading import load
from qwen2_book.model import Qwen2

TOLERANCE = 1e-4  # on distances in float32; rounding alone stays a hundred times below


def distance(found: Float[Tensor, "*_"], expected: Float[Tensor, "*_"]) -> float:
    """|found - expected| / |expected|, vector by vector along the last axis: the largest.

    Each vector counts by its own length, so that one huge token hides nothing; no length is taken
    for less than the median. Infinite for another number of elements, and for NaN.
    """
    if found.numel() != expected.numel():
        return float("inf")
    expected = expected.float()
    off = (found.float().reshape(expected.shape) - expected).norm(dim=-1)
    length = expected.norm(dim=-1)
    relative = off / length.maximum(length.median()).clamp(min=1e-30)
    return float(relative.nan_to_num(nan=torch.inf, posinf=torch.inf).max())


@torch.no_grad()
def record(model: nn.Module, token_ids: Int[Tensor, "batch seq"]) -> dict[str, Tensor]:
    """What went into and came out of every named module, in the order of the run; then the logits.

    A module's own output follows what its parts did. Outputs that are no tensor are left out, and
    so are inputs that are passed by name.
    """
    seen: dict[str, Tensor] = {}

    def keep(name: str, value: Any) -> None:
        value = value[0] if isinstance(value, tuple) and value else value
        if isinstance(value, Tensor) and value.is_floating_point():
            seen[name] = value.detach()

    hooks = []
    for name, part in model.named_modules():
        if name not in ("", "lm_head"):  # what the head makes are the logits
            hooks += [
                part.register_forward_pre_hook(lambda _, given, n=name: keep(f"{n}, input", given)),
                part.register_forward_hook(lambda _, given, made, n=name: keep(n, made)),
            ]
    try:
        result = model(token_ids)
    finally:
        for hook in hooks:
            hook.remove()
    keep("logits", getattr(result, "logits", result))
    return seen


def distances(
    model: nn.Module, reference: nn.Module, token_ids: Int[Tensor, "batch seq"]
) -> dict[str, float]:
    """The `distance` of every tensor that both models name alike, in the reference's order."""
    ours, theirs = record(model, token_ids), record(reference, token_ids)
    return {name: distance(ours[name], theirs[name]) for name in theirs if name in ours}


def first_difference(
    model: nn.Module,
    reference: nn.Module,
    token_ids: Int[Tensor, "batch seq"],
    tolerance: float = TOLERANCE,
) -> tuple[str, float] | None:
    """The first tensor, in the order of the run, that is further off than `tolerance`, or None.

    The reference is any module whose parts have the checkpoint's names: this package's model, or
    that of transformers. "…o_proj, input" means that the projections before it still agree, and
    what was made of them does not.
    """
    found = distances(model, reference, token_ids)
    return next(((name, off) for name, off in found.items() if not off <= tolerance), None)


def layouts() -> dict[str, Qwen2Config]:
    """A small configuration of every layout that the family has, or that its files allow."""
    dense = Qwen2Config(
        vocab_size=131,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        rope_theta=10_000.0,
        max_position_embeddings=256,
        dtype="float32",
    )
    experts = replace(
        dense,
        num_experts=8,
        num_experts_per_tok=3,
        moe_intermediate_size=32,
        shared_expert_intermediate_size=48,
    )
    return {
        "dense, tied head": replace(dense, tie_word_embeddings=True),
        "dense, own head": dense,
        "experts": experts,
        "experts, dense between": replace(experts, decoder_sparse_step=2, mlp_only_layers=(3,)),
        "sliding from layer 2": dense.with_window(7, full_layers=2),
        "YaRN": replace(dense, rope_scaling=RopeScaling(4.0, 64)),
    }


def random_model(config: Qwen2Config, seed: int = 0) -> Qwen2:
    """Random weights in which every part matters: biases, norms, and logits of order 10."""
    generator = torch.Generator().manual_seed(seed)
    model = Qwen2(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 2:
                parameter.copy_(0.12 * noise)
            else:
                parameter.add_(0.5 * noise)
        model.model.norm.weight.mul_(2)
    return model


def random_ids(config: Qwen2Config, batch: int = 2, length: int = 40) -> Int[Tensor, "batch seq"]:
    """The same random token ids at every call."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, config.vocab_size, (batch, length), generator=generator)


def copy_of(file: Path, model: Qwen2) -> nn.Module:
    """The class `Qwen2(config)` of a reader's file, with the weights of `model`.

    Raises ValueError where the file has no such class, or its parameters other names or shapes.
    """
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None or not file.is_file():
        raise ValueError(f"{file}: found no Python file there.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "Qwen2"):
        raise ValueError(f"{file}: expected a class Qwen2(config) in it, as in qwen2_book.model.")
    copy = module.Qwen2(model.config).to(model.dtype).eval()
    try:
        load_as_from_file(copy, model)
    except RuntimeError as error:
        raise ValueError(f"{file}: names or shapes are not the checkpoint's. {error}") from None
    return copy


def load_as_from_file(copy: nn.Module, model: Qwen2) -> None:
    """Give a module the tensors that the model's checkpoint would hold: a tied head is not one.

    Raises RuntimeError where names or shapes are others.
    """
    state = model.state_dict()
    left = copy.load_state_dict({name: state[name] for name in shapes(model.config)}, strict=False)
    missing = [name for name in left.missing_keys if name != "lm_head.weight"]
    if missing or left.unexpected_keys:
        raise RuntimeError(f"Missing: {missing[:5]}; not used: {left.unexpected_keys[:5]}.")


def report(file: Path, models: dict[str, tuple[Qwen2, Tensor]]) -> Iterator[tuple[bool, str]]:
    """For each model and its token ids whether the file's copy agrees, and a line that says so."""
    for name, (model, token_ids) in models.items():
        found = distances(copy_of(file, model), model, token_ids)
        wrong = [(place, each) for place, each in enumerate(found) if not found[each] <= TOLERANCE]
        if not wrong:
            yield True, f"{name}: all {len(found)} tensors agree, logits to {found['logits']:.0e}"
        else:
            place, each = wrong[0]
            off = f"off by {found[each]:.2g}; the {place} before it agree"
            yield False, f"{name}: FIRST DIFFERENCE at {each}, {off}"


def main() -> None:
    """Compare a file's class `Qwen2` with the package's: `python -m qwen2_book.parity my_model.py`.

    On a small random model of every layout, and on checkpoints where their folders are named. Ends
    with 1 where a tensor differs.
    """
    parser = argparse.ArgumentParser(prog="python -m qwen2_book.parity", description=__doc__)
    parser.add_argument("file", type=Path, help="a Python file with a class Qwen2(config)")
    parser.add_argument("checkpoints", nargs="*", help="folders or .gguf files to compare on, too")
    options = parser.parse_args()
    models: dict[str, tuple[Qwen2, Tensor]] = {}
    for name, config in layouts().items():
        models[name] = random_model(config), random_ids(config)
    for source in options.checkpoints:
        model, _ = load(source, device="cpu", dtype="float32")
        models[model.name_or_path] = model, random_ids(model.config, 1, 24)
    try:
        lines = list(report(options.file, models))
    except ValueError as error:
        sys.exit(f"error: {error}")
    sys.stdout.write("".join(f"{line}\n" for _, line in lines))
    sys.exit(0 if all(agrees for agrees, _ in lines) else 1)


if __name__ == "__main__":
    main()
