"""What a decoding step waits for, and what a prompt: one layer of Qwen2-0.5B, timed.

    python -m benchmarks.decode [--rounds 15]

Times attention of one new token over a long cache with 14, 2 and 1 key-value heads, and a layer's
matrices on more and more tokens at once; beside them the machine's own two limits. Writes
benchmarks/decode.json and benchmarks/decode.md. Needs no checkpoint.
"""

import argparse
import json
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import torch

from benchmarks.machine import machine
from qwen2_book import Qwen2Config
from qwen2_book.attention import attend

HERE = Path(__file__).parent
CONFIG = Qwen2Config.named("Qwen2-0.5B")
HEADS, DIM, HIDDEN = CONFIG.num_attention_heads, CONFIG.head_dim, CONFIG.hidden_size
CACHED, KV_HEADS = 32_768, (14, 2, 1)
TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
FLOAT, FRESH = 4, 2**28  # bytes of a float32; bytes to walk through, so that nothing stays near


def decode(kv_heads: int) -> tuple[Callable[[], object], int, int]:
    """One new token over a full cache of one layer: what to call, its operations, its bytes."""
    size = 2 * kv_heads * CACHED * DIM * FLOAT
    copies = [torch.randn(2, 1, kv_heads, CACHED, DIM) for _ in range(max(2, FRESH // size))]
    query, caches = torch.randn(1, HEADS, 1, DIM), cycle(copies)
    return lambda: attend(query, *next(caches)), 4 * HEADS * DIM * CACHED, size


def matrices() -> Callable[[int], tuple[Callable[[], object], int, int]]:
    """All matrices of a layer on `tokens` at once, for five layers in turn."""
    kv, inner = CONFIG.num_key_value_heads * DIM, CONFIG.intermediate_size
    shapes = [(HIDDEN, HIDDEN), (kv, HIDDEN), (kv, HIDDEN), (HIDDEN, HIDDEN)]
    shapes += [(inner, HIDDEN), (inner, HIDDEN), (HIDDEN, inner)]
    weights = sum(out * into for out, into in shapes)
    layers = cycle([[torch.randn(shape) for shape in shapes] for _ in range(5)])

    def on(tokens: int) -> tuple[Callable[[], object], int, int]:
        inputs = {width: torch.randn(tokens, width) for width in (HIDDEN, inner)}

        def work() -> None:
            for weight in next(layers):
                inputs[weight.shape[1]] @ weight.T

        moved = sum(tokens * (out + into) for out, into in shapes)
        return work, 2 * tokens * weights, (weights + moved) * FLOAT

    return on


def limits() -> dict[str, tuple[Callable[[], object], int, int]]:
    """Work that only computes, and work that only reads."""
    square, long, vector = torch.randn(2048, 2048), torch.randn(2**14, 2**13), torch.randn(2**13)
    return {
        "flops": (lambda: square @ square, 2 * 2048**3, 3 * square.numel() * FLOAT),
        "bytes": (lambda: torch.mv(long, vector), 2 * long.numel(), long.numel() * FLOAT),
    }


def page(results: dict) -> str:
    """The results as a page."""
    about = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    lines = [
        "| work | ms | operations a byte | billion operations/s | GB/s |",
        "|---|---:|---:|---:|---:|",
    ]
    named = {"decode": "attention, {} key-value heads", "prefill": "a layer's matrices, {} tokens"}
    for kind, name in named.items():
        for size, cell in results[kind].items():
            rates = [cell[what] / cell["seconds"] / 1e9 for what in ("flops", "bytes")]
            row = [name.format(size), f"{1000 * cell['seconds']:.2f}"]
            row += [f"{cell['flops'] / cell['bytes']:.2f}", *(f"{rate:.1f}" for rate in rates)]
            lines.append(f"| {' | '.join(row)} |")
    peak = results["peak"]
    return (
        "# What decoding waits for\n\nThis page is written by `python -m benchmarks.decode`; the "
        "numbers are in [decode.json](decode.json).\n\nOne layer with the shapes of Qwen2-0.5B, "
        f"float32; one new token over {CACHED:,} cached ones, and the layer's matrices on several "
        f"tokens at once; {about}. The fastest of "
        f"{results['rounds']} interleaved rounds; the machine was not idle. The machine's "
        f"own limits, in the same rounds: {peak['flops'] / 1e9:.0f} billion operations a second (a "
        f"large matrix product) and {peak['bytes'] / 1e9:.1f} GB a second (a matrix times a "
        "vector).\n\n" + "\n".join(lines) + "\n"
    )


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    on = matrices()
    works = {("decode", str(n)): decode(n) for n in KV_HEADS}
    works |= {("prefill", str(n)): on(n) for n in TOKENS}
    works |= {("peak", name): work for name, work in limits().items()}
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in works}
    for turn in range(options.rounds + 1):
        for key, (work, _, _) in works.items():
            began = time.perf_counter()
            work()
            if turn:  # the first round warms up
                seconds[key].append(time.perf_counter() - began)
    results: dict = {"machine": machine(), "rounds": options.rounds}
    for (kind, size), (_, flops, moved) in works.items():
        took = min(seconds[kind, size])
        cell = {"seconds": took, "flops": flops, "bytes": moved}
        rate = {"flops": flops, "bytes": moved}.get(size, 0) / took
        results.setdefault(kind, {})[size] = rate if kind == "peak" else cell
    results["ridge"] = results["peak"]["flops"] / results["peak"]["bytes"]
    (HERE / "decode.json").write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "decode.md").write_text(page(results))
    print(page(results))


if __name__ == "__main__":
    main()
