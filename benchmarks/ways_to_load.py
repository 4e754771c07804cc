"""Three ways to make a model of a safetensors file, and transformers: seconds and memory.

    QWEN2_BOOK_CHECKPOINT=folder python -m benchmarks.ways_to_load [--rounds 5]

Every measurement is a fresh process, the ways in turn, the file in the system's cache. Only the
weights are loaded, no tokenizer. Writes benchmarks/ways_to_load.json and ways_to_load.md.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import safetensors.torch
import torch

from benchmarks.machine import machine, resident
from qwen2_book import Qwen2, Qwen2Config
from qwen2_book.checkpoint.safetensors_file import read_folder, read_tensors
from qwen2_book.loading import without_random_numbers

HERE = Path(__file__).parent


def naive(folder):
    model = Qwen2(Qwen2Config.from_file(folder))  # random numbers, in float32
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    model.load_state_dict(weights)  # copied, and converted to float32
    return model.to(torch.bfloat16)  # converted back


def on_meta(folder):
    with torch.device("meta"), without_random_numbers():
        model = Qwen2(Qwen2Config.from_file(folder))  # shapes without numbers
    weights = safetensors.torch.load((folder / "model.safetensors").read_bytes())
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    model.load_state_dict(weights, assign=True)  # put in place, not copied
    return model


def mapped(folder):
    with torch.device("meta"), without_random_numbers():
        model = Qwen2(Qwen2Config.from_file(folder))
    entries = read_folder(folder)
    weights = dict(read_tensors(entries, torch.bfloat16, torch.device("cpu")))
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    model.load_state_dict(weights, assign=True)
    return model


def theirs(folder):
    import transformers

    return transformers.Qwen2ForCausalLM.from_pretrained(folder, dtype="auto").eval()


WAYS = {
    "naive": naive,
    "on meta, read whole": on_meta,
    "on meta, mapped": mapped,
    "transformers": theirs,
}


def own_memory() -> int | None:
    """Bytes of this process that no file backs; None where the system does not tell."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    return 1024 * int(next(line for line in lines if line.startswith("Anonymous:")).split()[1])


@torch.no_grad()
def measure(way: str, folder: Path) -> None:
    """Print seconds and peak bytes of loading, and of loading and one token."""
    if way == "transformers":
        import transformers

        transformers.AutoConfig.from_pretrained(folder)
        from transformers import Qwen2ForCausalLM  # noqa: F401  (its lazy imports, not timed)
    before, own = resident(), own_memory()
    began = time.perf_counter()
    model = WAYS[way](folder)
    found = {"load_s": time.perf_counter() - began, "load_bytes": resident() - before}
    model(torch.tensor([[1]]))
    found |= {"token_s": time.perf_counter() - began, "token_bytes": resident() - before}
    if own is not None:
        found["own_bytes"] = (own_memory() or 0) - own
    print(json.dumps(found))


def page(results: dict) -> str:
    """The results as a page."""
    lines = [
        "| way | loaded | and one token | peak, loaded | peak, one token | of it private |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for way, cell in results["medians"].items():
        times = [f"{cell[key]:.2f} s" for key in ("load_s", "token_s")]
        sizes = [
            f"{cell[key] / results['weights']:.2f}×"
            for key in ("load_bytes", "token_bytes", "own_bytes")
        ]
        lines.append(f"| {way} | {' | '.join([*times, *sizes])} |")
    about = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    return (
        "# Ways to load a checkpoint\n\nThis page is written by `python -m "
        "benchmarks.ways_to_load`; the single runs are in "
        "[ways_to_load.json](ways_to_load.json).\n\n"
        f"{results['checkpoint']}, a file of {results['weights']:,} bytes; {about}. Fresh "
        f"processes in turn, the file in the system's cache, {results['rounds']} rounds, medians; "
        "the machine was not idle. Memory as a multiple of the file: the most that was resident, "
        "less what was before, pages of the file included; the last column is what no "
        "file backs, at the end.\n\n" + "\n".join(lines) + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", choices=WAYS)
    options = parser.parse_args()
    source = os.environ.get("QWEN2_BOOK_CHECKPOINT")
    if not source:
        sys.exit("Set QWEN2_BOOK_CHECKPOINT to a Hugging Face folder (see checkpoints.md).")
    folder = Path(source)
    if options.measure:
        measure(options.measure, folder)
        return
    runs: dict[str, dict[str, list[float]]] = {way: {} for way in WAYS}
    for turn in range(options.rounds + 1):
        for way in WAYS:
            command = [sys.executable, "-m", "benchmarks.ways_to_load", "--measure", way]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            if turn:  # the first round brings the file into the system's cache
                for key, value in json.loads(done.stdout.splitlines()[-1]).items():
                    runs[way].setdefault(key, []).append(value)
    medians = {
        way: {key: statistics.median(values) for key, values in found.items()}
        for way, found in runs.items()
    }
    results = {"machine": machine(), "checkpoint": folder.name, "rounds": options.rounds}
    results |= {"weights": (folder / "model.safetensors").stat().st_size}
    results |= {"medians": medians, "runs": runs}
    (HERE / "ways_to_load.json").write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "ways_to_load.md").write_text(page(results))
    print(page(results))


if __name__ == "__main__":
    main()
