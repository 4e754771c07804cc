"""What the next token costs after n tokens: with the cache, and by running the whole text again.

    python -m benchmarks.generation [--rounds 3]

The shapes of Qwen2-0.5B with random weights, float32, one text. Writes benchmarks/generation.json
and benchmarks/generation.md. Needs no checkpoint.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.machine import machine
from qwen2_book import KVCache, Qwen2, Qwen2Config

HERE = Path(__file__).parent
LENGTHS = (16, 32, 64, 128, 256, 512)


def seconds(work: Callable[[], object]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def page(results: dict) -> str:
    """The results as a page."""
    about = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    lines = [
        "| tokens before | whole text again, s | with the cache, s | ratio |",
        "|---:|---:|---:|---:|",
    ]
    for length in results["again"]:
        again, cached = results["again"][length], results["cached"][length]
        lines.append(f"| {length} | {again:.2f} | {cached:.3f} | {again / cached:.1f} |")
    return (
        "# What the next token costs\n\nThis page is written by `python -m benchmarks.generation`; "
        "the numbers are in [generation.json](generation.json).\n\nThe shapes of Qwen2-0.5B, "
        f"random weights, float32, one text; {about}. The fastest of "
        f"{results['rounds']} interleaved rounds; the machine was not idle.\n\n"
        + "\n".join(lines)
        + "\n"
    )


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    config = Qwen2Config.named("Qwen2-0.5B")
    model = Qwen2(config).eval()
    text = torch.randint(0, config.vocab_size, (1, max(LENGTHS) + 1))
    caches = {length: KVCache(config, 1, length + 1) for length in LENGTHS}
    for length, cache in caches.items():
        model(text[:, :length], cache, last_only=True)
    best: dict[str, dict[str, float]] = {"again": {}, "cached": {}}
    for _ in range(options.rounds + 1):  # the first warms up, and is kept where it is the fastest
        for length, cache in caches.items():
            cache.truncate(length)
            again = partial(model, text[:, : length + 1], last_only=True)
            cached = partial(model, text[:, length : length + 1], cache)
            for kind, work in (("again", again), ("cached", cached)):
                took = seconds(work)
                best[kind][str(length)] = min(took, best[kind].get(str(length), took))
    ordered = {kind: {str(n): found[str(n)] for n in LENGTHS} for kind, found in best.items()}
    results = {"machine": machine(), "rounds": options.rounds + 1, **ordered}
    (HERE / "generation.json").write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "generation.md").write_text(page(results))
    print(page(results))


if __name__ == "__main__":
    main()
