"""What rounding the weights does to a real model: perplexity, and how often the choice stays.

    QWEN2_BOOK_CHECKPOINT=folder python -m benchmarks.quality [--tokens 400]

Each way of rounding is tried on the plain float32 model, whose matrices then hold the rounded
numbers; `inputs in 8 bits` also rounds what is multiplied with them, with a scale for each token;
`through the kernels` reads the packed weights themselves, with bfloat16 between the layers. Three
texts; nothing was fitted to them. Writes benchmarks/quality.json and benchmarks/quality.md.
"""

import argparse
import copy
import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.machine import machine
from qwen2_book import KVCache, Qwen2, load
from qwen2_book.packed import PACKED_ROWS
from qwen2_book.rounding import round_int4, round_int8, unround_int4, unround_int8

HERE = Path(__file__).parent
TEXTS = HERE.parent / "notebooks" / "data" / "07_texts"
NAMES = ("english", "chinese", "code")
PARTS = ("attention", "feed_forward", "head")
Round = Callable[[Tensor], Tensor]


def int8(weight: Tensor) -> Tensor:
    """A scale for each row."""
    return unround_int8(*round_int8(weight))


def int4(weight: Tensor, group: int = 32) -> Tensor:
    """A scale and a zero for each group of a row; a row that is no multiple gets smaller ones."""
    group = next(g for g in (group, 64, 32) if not weight.shape[1] % g)
    return unround_int4(*round_int4(weight, group))


def one_scale(weight: Tensor, bits: int) -> Tensor:
    """One scale for the whole matrix."""
    scale = weight.abs().max() / (2 ** (bits - 1) - 1)
    return (weight / scale).round() * scale


def row_scale(weight: Tensor) -> Tensor:
    """4 bits, with a scale and a zero for each row."""
    low, high = weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
    scale = (high - low) / 15
    return ((weight - low) / scale).round() * scale + low


def least_squares(weight: Tensor, group: int = 32) -> Tensor:
    """4 bits; scale and zero refitted twice to the steps, for the least squared error."""
    values = weight.unflatten(1, (-1, group))
    low, high = values.amin(2, keepdim=True), values.amax(2, keepdim=True)
    scale, zero = (high - low) / 15, low
    for _ in range(3):
        steps = ((values - zero) / scale.clamp(min=1e-12)).round().clamp(0, 15)
        mean = steps.mean(2, keepdim=True)
        spread = ((steps - mean) ** 2).sum(2, keepdim=True).clamp(min=1e-12)
        scale = ((steps - mean) * values).sum(2, keepdim=True) / spread
        zero = values.mean(2, keepdim=True) - scale * mean
    return (steps * scale + zero).flatten(1)


def mostly(way: Round) -> dict[str, Round]:
    """The head, which is the most sensitive, in int8."""
    return {"attention": way, "feed_forward": way, "head": int8}


WAYS: dict[str, dict[str, Round]] = {
    "int8": dict.fromkeys(PARTS, int8),
    "int4": mostly(int4),
    "int4, attention in int8": mostly(int4) | {"attention": int8},
    "int4 throughout": dict.fromkeys(PARTS, int4),
    "int4, groups of 128": mostly(partial(int4, group=128)),
    "int4, a scale a row": mostly(row_scale),
    "int4, least squares": mostly(least_squares),
    "int8, one scale a matrix": dict.fromkeys(PARTS, partial(one_scale, bits=8)),
}
INPUTS = {"int8, inputs in 8 bits": 127, "int8, inputs in 7 bits": 63}


def round_inputs(model: Qwen2, most: int) -> Qwen2:
    """Each input of a matrix in whole numbers up to `most`, with a scale for each token."""

    def rounded(_: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        step = inputs[0].abs().amax(-1, keepdim=True).clamp(min=1e-30) / most
        return (inputs[0] / step).round() * step

    for part in model.modules():
        if isinstance(part, nn.Linear):
            part.register_forward_pre_hook(rounded)
    return model


@torch.no_grad()
def rounded(model: Qwen2, ways: dict[str, Round]) -> Qwen2:
    """A copy whose matrices hold the rounded numbers; the embedding stays as it was."""
    new = copy.deepcopy(model)
    if new.config.tie_word_embeddings:
        new.config = replace(new.config, tie_word_embeddings=False)
        new.lm_head.weight = nn.Parameter(model.lm_head.weight.clone())
    for name, part in new.named_modules():
        if isinstance(part, nn.Linear):
            where = "attention" if "attn" in name else "feed_forward" if "mlp" in name else "head"
            part.weight.copy_(ways[where](part.weight))
    return new


@torch.no_grad()
def read(model: Qwen2, ids: Tensor) -> Tensor:
    """Logits (texts, tokens, vocab) of whole texts, one at a time."""
    return torch.cat([model(row[None]) for row in ids])


@torch.no_grad()
def read_packed(model: Qwen2, ids: Tensor) -> Tensor:
    """The same by passes of so few tokens that they read packed weights."""
    cache = KVCache(model.config, len(ids), ids.shape[1], dtype=model.dtype)
    step = PACKED_ROWS // len(ids)
    return torch.cat([model(part, cache) for part in ids.split(step, 1)], 1).float()


def marks(logits: Tensor, exact: Tensor, ids: Tensor) -> dict[str, float]:
    """Perplexity over the texts, and the share of equal first choices."""
    loss = cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    same = (logits.argmax(-1) == exact.argmax(-1)).float().mean()
    return {"perplexity": math.exp(loss), "same choice": float(same)}


def page(results: dict) -> str:
    """The results as a page."""
    base = results["ways"]["float32"]["perplexity"]
    about = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    lines = ["| weights | perplexity | change | same first choice |", "|---|---:|---:|---:|"]
    for name, cell in results["ways"].items():
        change = f"{cell['perplexity'] / base - 1:+.1%}"
        lines.append(
            f"| {name} | {cell['perplexity']:.3f} | {change} | {cell['same choice']:.1%} |"
        )
    return (
        "# What rounding costs\n\nThis page is written by `python -m benchmarks.quality`; the "
        f"numbers are in [quality.json](quality.json).\n\n{results['checkpoint']}; {about}. "
        f"{results['tokens']} tokens of each of three texts (English, Chinese, code). `int4` has "
        "the head in int8, and groups of 32.\n\n" + "\n".join(lines) + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--out", type=Path, default=HERE, help="where the two files go")
    options = parser.parse_args()
    source = os.environ.get("QWEN2_BOOK_CHECKPOINT")
    if not source:
        sys.exit("Set QWEN2_BOOK_CHECKPOINT to a Hugging Face folder (see checkpoints.md).")
    model, tokenizer = load(source, device="cpu", dtype="float32")
    assert tokenizer is not None
    texts = [(TEXTS / f"{name}.txt").read_text("utf-8") for name in NAMES]
    ids = torch.tensor([tokenizer.encode(text)[: options.tokens] for text in texts])
    exact = read(model, ids)
    found = {"float32": marks(exact, exact, ids)}
    for name, ways in WAYS.items():
        found[name] = marks(read(rounded(model, ways), ids), exact, ids)
    for name, most in INPUTS.items():
        found[name] = marks(read(round_inputs(rounded(model, WAYS["int8"]), most), ids), exact, ids)
    for kind in ("int8", "int4"):
        fast, _ = load(source, device="cpu", quantize=kind)
        found[f"{kind}, through the kernels"] = marks(read_packed(fast, ids), exact, ids)
    results = {"machine": machine(), "checkpoint": Path(source).name, "tokens": options.tokens}
    results |= {"ways": found}
    (options.out / "quality.json").write_text(json.dumps(results, indent=1) + "\n")
    (options.out / "quality.md").write_text(page(results))
    print(page(results))


if __name__ == "__main__":
    main()
