"""This book's model beside transformers: same weights, same prompts, one interleaved run.

    QWEN2_BOOK_CHECKPOINT=folder python -m benchmarks.run [--rounds 5]

Writes benchmarks/results.json and the table in benchmarks/README.md. Machines are noisy, so what
counts is the ratio within a round; the table gives the median of the rounds and their range.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

from benchmarks.loading import WAYS
from qwen2_book import KVCache, load

HERE = Path(__file__).parent
PROMPT, NEW = 512, 32  # tokens taken in, tokens produced after a prompt of 128
DTYPES = ("float32", "bfloat16")


def ours(folder: str, dtype: str) -> dict[str, Callable[[], None]]:
    model, _ = load(folder, device="cpu", dtype=dtype)
    long, short = prompts(model.config.vocab_size)

    def prefill() -> None:
        model(long, KVCache(model.config, 1, PROMPT, dtype=model.dtype), last_only=True)

    def decode() -> None:
        cache = KVCache(model.config, 1, short.shape[1] + NEW, dtype=model.dtype)
        logits = model(short, cache, last_only=True)
        decode.started = time.perf_counter()  # type: ignore[attr-defined]
        for _ in range(NEW):
            logits = model(logits[:, -1].argmax(-1, keepdim=True), cache)

    return {"prefill": prefill, "decode": decode}


def theirs(folder: str, dtype: str) -> dict[str, Callable[[], None]]:
    kind = getattr(torch, dtype)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=kind).eval()
    long, short = prompts(model.config.vocab_size)

    def prefill() -> None:
        model(long, use_cache=True, logits_to_keep=1)

    def decode() -> None:
        out = model(short, use_cache=True, logits_to_keep=1)
        decode.started = time.perf_counter()  # type: ignore[attr-defined]
        for _ in range(NEW):
            token = out.logits[:, -1].argmax(-1, keepdim=True)
            out = model(token, past_key_values=out.past_key_values, use_cache=True)

    return {"prefill": prefill, "decode": decode}


def prompts(vocabulary: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, min(vocabulary, 150_000), (1, PROMPT), generator=generator)
    return ids, ids[:, :128]


def timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - getattr(work, "started", began)


@torch.no_grad()
def speed(folder: str, rounds: int) -> list[dict]:
    rows = []
    for dtype in DTYPES:
        peers = {"qwen2_book": ours(folder, dtype), "transformers": theirs(folder, dtype)}
        for task, tokens in (("prefill", PROMPT), ("decode", NEW)):
            seconds: dict[str, list[float]] = {name: [] for name in peers}
            for step in range(rounds + 1):
                for name in list(peers) if step % 2 else list(peers)[::-1]:  # fair order
                    taken = timed(peers[name][task])
                    if step:  # the first round warms up
                        seconds[name].append(taken)
            rate = {name: [tokens / s for s in found] for name, found in seconds.items()}
            rows.append(row(f"{task}, {dtype}", "tokens/s", rate))
    return rows


def loading(folder: str, rounds: int) -> list[dict]:
    found: dict[str, dict[str, list[float]]] = {}
    for step in range(rounds + 1):
        for name in WAYS if step % 2 else WAYS[::-1]:
            command = [sys.executable, "-m", "benchmarks.loading", name, folder]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            if step:
                for key, value in json.loads(out.splitlines()[-1]).items():
                    found.setdefault(key, {way: [] for way in WAYS})[name].append(value)
    return [
        row("load the folder, as stored", "s", found["load_s"]),
        row("load and first token", "s", found["first_token_s"]),
        row("peak memory over the weights", "×", found["peak_over_weights"]),
    ]


def row(what: str, unit: str, values: dict[str, list[float]]) -> dict:
    mine, other = values["qwen2_book"], values["transformers"]
    ratios = sorted(a / b for a, b in zip(mine, other, strict=True))
    medians = {name: statistics.median(found) for name, found in values.items()}
    return {"what": what, "unit": unit, "values": values, "medians": medians, "ratios": ratios}


def table(results: dict) -> str:
    lines = ["| | unit | qwen2_book | transformers | ratio, median (range) |"]
    lines += ["|---|---|---:|---:|---:|"]
    for line in results["rows"]:
        ours, other = line["medians"]["qwen2_book"], line["medians"]["transformers"]
        ratios = line["ratios"]
        spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})"
        numbers = [f"{x:.0f}" if x >= 100 else f"{x:.3g}" for x in (ours, other)]
        lines.append(f"| {line['what']} | {line['unit']} | {' | '.join(numbers)} | {spread} |")
    return "\n".join(lines)


def machine() -> dict[str, str]:
    names = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "processor": f"{len(names)} × {names[0]}" if names else platform.processor(),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    folder = os.environ.get("QWEN2_BOOK_CHECKPOINT")
    if not folder:
        sys.exit("Set QWEN2_BOOK_CHECKPOINT to a Hugging Face folder (see checkpoints.md).")
    results = {"machine": machine(), "checkpoint": Path(folder).name, "rounds": rounds}
    results["rows"] = loading(folder, min(rounds, 3)) + speed(folder, rounds)
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    about = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    text = (
        "# Benchmarks\n\nThis page is written by `make bench`; the single runs are in "
        f"[results.json](results.json).\n\n{results['checkpoint']}; {about}. Rates: higher is "
        f"better; seconds and memory: lower. Prefill of {PROMPT} tokens, decoding of {NEW} tokens "
        "after 128, batch 1, transformers' own forward pass with its cache (without the overhead "
        f"of `generate`), {rounds} interleaved rounds.\n\n{table(results)}\n"
    )
    (HERE / "README.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
