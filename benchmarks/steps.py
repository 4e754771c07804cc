"""One change at a time: what each step from the plain model to the fast one brings.

    QWEN2_BOOK_CHECKPOINT=folder python -m benchmarks.steps [--rounds 5] [--threads 2]

Every round takes all variants in turn: a prompt, then tokens one by one over a short and a long
cache. After them: rows at once (a batch), the single products, the length of the cache with and
without a window, two sizes of model with random weights, guessing. `--compile` also tries
torch.compile, which needs a C++ compiler and some minutes. Machines are noisy, so what counts is
the ratio within a round. Writes benchmarks/steps.json and benchmarks/steps.md.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.engines import limits, prompts
from benchmarks.machine import machine
from qwen2_book import KVCache, Qwen2, Qwen2Config, attention, generate, load, optimize, packed
from qwen2_book.quantize import FastQwen2
from qwen2_book.speculative import PromptLookup, speculate
from qwen2_book.widgets.roofline import BYTES

HERE = Path(__file__).parent
PROMPT, SMALL, SHORT, LONG = 256, 64, 128, 4096  # tokens of two prompts; of the two caches
BATCHES, ROWS = (1, 2, 4, 8, 16, 32), (1, 2, 4, 8, 16, 32, 64)
CONTEXTS, WINDOW = (128, 1024, 4096, 16384, 32768), 1024
WEIGHTS = ("float32", "bfloat16", "int8", "int4")
LIES = ("bfloat16 as it lies", "bfloat16")  # in the file's order, through bfloat16 products; ours
NEW = 48  # tokens of a text that is guessed
Found = dict[str, Any]


class GrowingCache(KVCache):
    """Keys and values made anew for every token, as by torch.cat in many first implementations."""

    def update(self, layer, key, value):
        before = self.length - key.shape[2]
        for kept, fresh in ((self.keys, key), (self.values, value)):
            kept[layer] = torch.cat((kept[layer][:, :, :before], fresh), 2)
        return self.keys[layer], self.values[layer]


def repeated(query, key, value, mask=None):
    """Attention with a key head copied for every query head that reads it."""
    groups = query.shape[1] // key.shape[1]
    key, value = (each.repeat_interleave(groups, 1) for each in (key, value))
    causal = mask is None and query.shape[2] > 1
    return F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal)


@dataclass
class Variant:
    """A model and how it is run."""

    model: Any
    cache: type[KVCache] = KVCache
    copies: bool = False  # keys are repeated
    every: bool = False  # logits of every position of the prompt
    emulated: bool = packed.EMULATED  # the products of many rows are made in float32

    def running(self):
        """The plain ways put in place of the package's."""
        if not self.copies:
            return patch.object(packed, "EMULATED", self.emulated)
        both = patch.object(attention, "attend", repeated)
        return both if type(self.model) is Qwen2 else nullcontext()

    def prompt(self, ids: torch.Tensor) -> float:
        cache = self.cache(self.model.config, 1, ids.shape[1], dtype=self.model.dtype)
        with self.running():
            return seconds(lambda: self.model(ids, cache, last_only=not self.every))

    def filled(self, length: int, batch: int = 1, room: int = 64) -> KVCache:
        """A cache with random keys and values; what stands there does not change the time."""
        model = self.model
        cache = self.cache(model.config, batch, length + room, dtype=model.dtype)
        for tensor in cache.keys + cache.values:
            tensor.normal_()
        cache.append(torch.arange(length)[None])
        return cache

    def decode(self, cache: KVCache, new: int) -> float:
        """Seconds for each of `new` tokens one by one; the cache is then as it was."""
        length, ids = cache.length, torch.zeros(cache.batch, 1, dtype=torch.long)
        with self.running():
            took = seconds(lambda: [self.model(ids, cache) for _ in range(new)])
        cache.truncate(length)
        return took / new


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_turn(works: Mapping[str, Callable[[], float]], rounds: int) -> Found:
    """What each gives in each round; the first round warms up, the order turns round."""
    found: Found = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name in list(works)[:: 1 if turn % 2 else -1]:
            value = works[name]()
            if turn:
                found[name].append(value)
    return found


def variants(folder: Path) -> dict[str, Variant]:
    """From the plain model to the fast one, each with one change more than the one before."""
    wide, _ = load(folder, device="cpu", dtype="float32")
    stored, _ = load(folder, device="cpu", dtype="bfloat16")
    fused, whole = (optimize(wide, "float32") for _ in range(2))
    for part, plain in zip(fused.model.layers, wide.model.layers, strict=True):
        part.input_layernorm = plain.input_layernorm
        part.post_attention_layernorm = plain.post_attention_layernorm
    fused.model.norm = wide.model.norm
    found = {
        "plain": Variant(wide, GrowingCache, copies=True, every=True),
        "last position": Variant(wide, GrowingCache, copies=True),
        "cache made once": Variant(wide, copies=True),
        "groups folded": Variant(wide),
        "projections fused": Variant(fused),
        "float32": Variant(whole),
    }
    with patch.object(packed, "LAID_OUT", False):
        found["bfloat16 as it lies"] = Variant(optimize(stored, "bfloat16"), emulated=False)
    for weights in WEIGHTS[1:]:
        found[weights] = Variant(optimize(stored, weights))
    found["int4 throughout"] = Variant(optimize(stored, "int4", int8_parts=()))
    return found


def chain(found: dict[str, Variant], options: argparse.Namespace) -> dict[str, Found]:
    """Seconds of a prompt and of a token, over both caches, for each variant."""
    first = ("plain", "last position", "projections fused", "float32", *LIES)
    prompt, small = prompts(1, PROMPT), prompts(1, SMALL)
    works = {name: partial(found[name].prompt, prompt) for name in first}
    results = {"prefill": in_turn(works, options.rounds)}
    works = {name: partial(found[name].prompt, small) for name in LIES}
    results["products"] = in_turn(works, options.rounds)
    steps = {name: variant for name, variant in found.items() if name != "last position"}
    for length in (SHORT, LONG):
        filled = {n: partial(v.decode, v.filled(length), options.new) for n, v in steps.items()}
        results[f"decode {length}"] = in_turn(filled, options.rounds)
    results["bookkeeping"] = bookkeeping(found["int4"], options)
    return results


def bookkeeping(quick: Variant, options: argparse.Namespace) -> Found:
    """Seconds of a token with PyTorch's bookkeeping for gradients, none of which are asked for."""
    cache = quick.filled(SHORT)

    def kept() -> float:
        with patch.object(FastQwen2, "hidden_states", Qwen2.hidden_states):
            return quick.decode(cache, options.new)

    usual = partial(quick.decode, cache, options.new)
    works: dict[str, Callable[[], float]] = {"int4, no_grad": kept, "int4": usual}
    return in_turn(works, options.rounds)


def compiled(plain: Variant, options: argparse.Namespace) -> dict[str, Any]:
    """torch.compile beside the same model without it, and the seconds of its first calls."""
    cache, quick = plain.filled(SHORT), Variant(Compiled(plain.model))
    first = 3 * quick.decode(cache, 3)
    works = {
        "float32": partial(plain.decode, cache, options.new),
        "float32 compiled": partial(quick.decode, cache, options.new),
    }
    return {"first calls": first, "decode": in_turn(works, options.rounds)}


class Compiled:
    """A model through torch.compile, called as the plain one is."""

    def __init__(self, model: Qwen2) -> None:
        self.call, self.config = torch.compile(model, dynamic=True), model.config

    def __call__(self, *args: Any) -> torch.Tensor:
        return self.call(*args)


def batches(found: dict[str, Variant], options: argparse.Namespace) -> dict[str, Found]:
    """Seconds of one step of several texts at once."""
    results: dict[str, Found] = {}
    for batch in BATCHES:
        new = max(2, options.new // (2 if batch < 8 else 4))
        works = {n: partial(found[n].decode, found[n].filled(SHORT, batch), new) for n in WEIGHTS}
        for name, took in in_turn(works, options.rounds).items():
            results.setdefault(name, {})[str(batch)] = took
    return results


def kernels(rounds: int) -> dict[str, dict[str, Any]]:
    """Weights a second, counted once a row, of one product with 1 to 64 rows at once.

    `memory`: gate and up of a layer, a dozen copies walked through in turn, so that they come from
    memory as they do in a model. `near`: a quarter of it, again and again, so that it stays in the
    processor's cache: what is left then is arithmetic.
    """
    config = Qwen2Config.named("Qwen2-0.5B")
    results: dict[str, dict[str, Any]] = {}
    for weights in WEIGHTS:
        cell = results[weights] = {"bytes": BYTES[weights][1]}
        half = config.intermediate_size // 2
        for place, out, copies in (("memory", 4 * half, 12), ("near", half, 1)):
            products = [one_product(weights, out, config.hidden_size) for _ in range(copies)]
            few = getattr(products[0], "few", packed.PACKED_ROWS)
            cell["few"], turn = 0 if weights == "float32" else few, cycle(products)
            numbers = out * config.hidden_size
            cell[place] = {}
            for rows in ROWS:
                x = torch.randn(rows, config.hidden_size)
                x = x if weights == "float32" else x.bfloat16()
                took = [seconds(partial(next(turn), x)) for _ in range(24 * rounds)]
                cell[place][str(rows)] = rows * numbers / min(took[2:])
    return results


@patch.object(packed, "LARGE", 0)
def one_product(weights: str, out: int, width: int) -> nn.Module:
    """A layer as it is in the optimised model."""
    layer = nn.Linear(width, out, bias=False)
    if weights == "float32":
        return packed.FusedLinear(layer, dtype=torch.float32)
    layer = layer.bfloat16()
    if weights == "bfloat16":
        return packed.FusedLinear(layer, dtype=torch.bfloat16)
    return packed.pack(layer, kind=weights, group=32)


def contexts(found: dict[str, Variant], options: argparse.Namespace) -> dict[str, Found]:
    """Seconds of a token as the cache grows, with all of it visible and with a window."""
    results: dict[str, Found] = {"full": {}, "window": {}}
    model = found["int4"].model
    kinds = {"full": Variant(model), "window": Variant(model.with_window(WINDOW))}
    new = max(2, options.new // 2)
    for length in CONTEXTS:
        works = {n: partial(kind.decode, kind.filled(length), new) for n, kind in kinds.items()}
        for name, took in in_turn(works, options.rounds).items():
            results[name][str(length)] = took
    return results


def sizes(options: argparse.Namespace) -> dict[str, Found]:
    """Seconds of a token for two sizes of the family, with random weights."""
    works: dict[str, Callable[[], float]] = {}
    for size in ("0.5B", "1.5B"):
        with torch.device("meta"):
            model = Qwen2(Qwen2Config.named(f"Qwen2-{size}"))
        model = model.bfloat16().to_empty(device="cpu").eval()
        for tensor in model.state_dict().values():
            tensor.normal_(std=0.02)
        for weights in WEIGHTS[1:]:
            variant = Variant(optimize(model, weights))
            filled = variant.filled(SHORT)
            works[f"{size} {weights}"] = partial(variant.decode, filled, options.new)
    return in_turn(works, options.rounds)


def guessing(folder: Path, rounds: int) -> dict[str, Any]:
    """Greedy text of a prompt that is copied, with and without prompt look-up."""
    model, tokenizer = load(folder, device="cpu", dtype="bfloat16")
    assert tokenizer is not None
    text = (HERE / "machine.py").read_text("utf-8")[:500]
    asked = f"Print this file again, unchanged.\n\n{text}"
    ids = tokenizer.apply_chat_template([{"role": "user", "content": asked}])
    results: dict[str, Any] = {}
    for weights in ("bfloat16", "int4"):
        fast = optimize(model, weights)
        guess = partial(speculate, fast, ids, PromptLookup(), stop=[])
        made = guess(NEW)
        works = {
            "prompt": partial(seconds, partial(generate, fast, [ids], 1, stop=[])),
            "plain": partial(seconds, partial(generate, fast, [ids], NEW, stop=[])),
            "guessed": partial(seconds, partial(guess, NEW)),
        }
        counts = {"made": len(made.token_ids), "passes": made.passes}
        counts |= {"proposed": made.proposed, "accepted": made.accepted}
        results[weights] = counts | in_turn(works, rounds)
    return results


def over(before: list[float], after: list[float]) -> str:
    """Median and range, over the rounds, of how many times as fast the second is."""
    found = sorted(a / b for a, b in zip(before, after, strict=True))
    return f"{statistics.median(found):.2f} ({found[0]:.2f}–{found[-1]:.2f})"


def steps_table(what: str, found: Found) -> str:
    names, median = list(found), {n: statistics.median(t) for n, t in found.items()}
    lines = [
        f"| {what} | ms | against the one before | against the first |",
        "|---|---:|---:|---:|",
    ]
    for place, name in enumerate(names):
        gains = [over(found[names[k]], found[name]) if place else "" for k in (place - 1, 0)]
        lines.append(f"| {name} | {1000 * median[name]:.1f} | {' | '.join(gains)} |")
    return "\n".join(lines)


def grid(title: str, rows: dict[str, Any], rate: Callable) -> str:
    """One line for each name, one column for each size, medians turned into `rate`."""
    columns = list(next(iter(rows.values())))
    lines = [f"| {title} | {' | '.join(f'{int(c):,}' for c in columns)} |"]
    lines.append("|---|" + "---:|" * len(columns))
    for name, cells in rows.items():
        texts = [f"{rate(int(c), statistics.median(cells[c])):.3g}" for c in columns]
        lines.append(f"| {name} | {' | '.join(texts)} |")
    return "\n".join(lines)


def kernel_table(kernels: dict[str, dict[str, Any]], place: str) -> str:
    """Rates of one product, whose matrix comes from memory or stays in the cache."""
    what = "from memory" if place == "memory" else "from the cache"
    lines = [f"| one product {what}, G weights/s of all rows | {' | '.join(map(str, ROWS))} |"]
    lines.append("|---|" + "---:|" * len(ROWS))
    for name, cell in kernels.items():
        rates = " | ".join(f"{rate / 1e9:.3g}" for rate in cell[place].values())
        lines.append(f"| {name} | {rates} |")
    return "\n".join(lines)


def page(results: dict) -> str:
    """The results as a page."""
    about = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    limit = ", ".join(f"{value / 1e9:.1f} G {what}" for what, value in results["limits"].items())
    parts = [
        "# One change at a time\n\nThis page is written by `python -m benchmarks.steps`; the "
        f"single runs are in [steps.json](steps.json).\n\n{results['checkpoint']}; {about}. "
        f"{results['rounds']} interleaved rounds, medians, ranges of the ratios within a round. "
        f"The machine's own limits: {limit}. Load average before and after: "
        f"{results['load average']}. In the first tables each line has one change more than the "
        "line above it; the last lines change the weights.",
        steps_table(f"a prompt of {PROMPT} tokens", results["chain"]["prefill"]),
        steps_table(f"a prompt of {SMALL} tokens, bfloat16", results["chain"]["products"]),
        *(
            steps_table(f"a token, {n:,} in the cache", results["chain"][f"decode {n}"])
            for n in (SHORT, LONG)
        ),
        steps_table("a token, 128 in the cache", results["chain"]["bookkeeping"]),
        grid("tokens/s of all texts, by texts at once", results["batches"], lambda n, t: n / t),
        *(kernel_table(results["kernels"], place) for place in ("memory", "near")),
        grid("int4, tokens/s, by tokens in the cache", results["contexts"], lambda n, t: 1 / t),
        steps_table("a token, random weights", results["sizes"]),
    ]
    lines = ["| look-up | passes for tokens | kept of guesses | times as fast, prompt left out |"]
    lines.append("|---|---:|---:|---:|")
    for weights, cell in results["guessing"].items():
        first = cell["prompt"]
        plain, guessed = (
            [a - b for a, b in zip(cell[kind], first, strict=True)] for kind in ("plain", "guessed")
        )
        kept = f"{cell['accepted']} of {cell['proposed']}"
        passes = f"{cell['passes']} for {cell['made']}"
        lines.append(f"| {weights} | {passes} | {kept} | {over(plain, guessed)} |")
    parts.append("\n".join(lines))
    if "compiled" in results:
        table = steps_table("a token, torch.compile", results["compiled"]["decode"])
        first = results["compiled"]["first calls"]
        parts.append(f"{table}\n\nThe first three calls took {first:.0f} s.")
    return "\n\n".join(parts) + "\n"


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--new", type=int, default=8, help="tokens one by one")
    parser.add_argument("--compile", action="store_true", help="try torch.compile, too")
    parser.add_argument("--out", type=Path, default=HERE, help="where the two files go")
    options = parser.parse_args()
    source = os.environ.get("QWEN2_BOOK_CHECKPOINT")
    if not source:
        sys.exit("Set QWEN2_BOOK_CHECKPOINT to a Hugging Face folder (see checkpoints.md).")
    folder, busy = Path(source), os.getloadavg()[0]
    torch.set_num_threads(options.threads)
    results: dict[str, Any] = {"machine": machine(), "checkpoint": folder.name}
    results["machine"]["instructions"] = torch.backends.cpu.get_cpu_capability()
    results |= {"rounds": options.rounds, "new": options.new, "limits": limits()}
    found = variants(folder)
    results["chain"] = chain(found, options)
    results["batches"] = batches(found, options)
    results["kernels"] = kernels(options.rounds)
    results["contexts"] = contexts(found, options)
    if options.compile:
        results["compiled"] = compiled(found["float32"], options)
    del found
    results["sizes"] = sizes(options)
    results["guessing"] = guessing(folder, options.rounds)
    results["load average"] = f"{busy:.1f}, {os.getloadavg()[0]:.1f}"
    (options.out / "steps.json").write_text(json.dumps(results, indent=1) + "\n")
    (options.out / "steps.md").write_text(page(results))
    print(page(results))


if __name__ == "__main__":
    main()
