"""How time and memory grow with the text: full attention and a window, alone and in the engine.

    python -m benchmarks.windows [--rounds 3]

Every measurement is a fresh process, the forms in turn; writes benchmarks/windows.json and the
table in benchmarks/windows.md. Needs no checkpoint.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.machine import machine, resident
from qwen2_book import Qwen2, Qwen2Config, optimize
from qwen2_book.window import banded_attention, visible

HERE = Path(__file__).parent
WINDOW, HEADS, KV_HEADS, DIM = 1024, 2, 1, 64
LENGTHS = (1024, 2048, 4096, 8192, 16384, 32768)
FIT_FROM, DENSE_UP_TO, REPEATS = 4096, 8192, 2


def dense(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """All scores, the hidden ones masked: correct, and no cheaper for its window."""
    at = torch.arange(query.shape[2])[None]
    key, value = (each.repeat_interleave(HEADS // KV_HEADS, 1) for each in (key, value))
    scores = query @ key.transpose(2, 3) * DIM**-0.5
    return scores.masked_fill(~visible(at, at, WINDOW), -math.inf).softmax(-1) @ value


def full(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """PyTorch's own causal attention, in blocks, no window."""
    return F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)


def banded(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The package's sliding window, in blocks."""
    return banded_attention(query, key, value, WINDOW)


FORMS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "dense mask": dense,
    "full causal": full,
    "banded": banded,
}
ENGINE = ("engine, full causal", "engine, dense mask", "engine, banded")


def attention(form: str, length: int) -> Callable[[int], object]:
    """A call of one attention on the first tokens of a text."""
    query, key, value = (torch.randn(1, h, length, DIM) for h in (HEADS, KV_HEADS, KV_HEADS))
    return lambda n: FORMS[form](*(each[:, :, :n] for each in (query, key, value)))


def prompt(form: str, length: int) -> Callable[[int], object]:
    """A pass of the optimised engine over the first tokens of a prompt, in two layers."""
    config = Qwen2Config(
        vocab_size=1000,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=2,
        num_attention_heads=14,
        num_key_value_heads=2,
    )
    ids = torch.randint(0, 1000, (1, length))
    model: Qwen2 = optimize(Qwen2(config).bfloat16())
    if form != ENGINE[0]:
        model = model.with_window(WINDOW)
    kind = Qwen2 if form == ENGINE[1] else type(model)  # the plain model's masks, or bands

    def call(n: int) -> object:
        positions, masks = kind.positions_and_masks(model, ids[:, :n], None, None)
        return model.hidden_states(ids[:, :n], positions, masks)

    return call


@torch.inference_mode()
def measure(form: str, length: int) -> None:
    """Print the best time in seconds, and the memory in bytes that a call adds at its peak."""
    call = (prompt if form in ENGINE else attention)(form, length)
    call(64)
    before, seconds = resident(), []
    for _ in range(REPEATS):
        began = time.perf_counter()
        call(length)
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"seconds": min(seconds), "bytes": resident() - before}))


def exponent(lengths: list[int], values: list[float]) -> float:
    """The slope of log(value) over log(length): 1 is linear growth, 2 is quadratic."""
    return statistics.linear_regression([*map(math.log, lengths)], [*map(math.log, values)]).slope


def summary(found: dict[str, dict[int, dict[str, list[float]]]]) -> dict:
    """Medians over the rounds, fitted exponents, and speed-ups from ratios within a round."""
    medians = {
        form: {
            str(n): {key: statistics.median(runs) for key, runs in each.items()}
            for n, each in lengths.items()
        }
        for form, lengths in found.items()
    }
    fitted = [n for n in LENGTHS if n >= FIT_FROM]
    return {
        "medians": {form: medians[form] for form in FORMS},
        "exponents": {
            form: exponent(fitted, [medians[form][str(n)]["seconds"] for n in fitted])
            for form in ("full causal", "banded")
        },
        "engine": {form: medians[form] for form in ENGINE},
        "memory_exponent": exponent(fitted, [medians["banded"][str(n)]["bytes"] for n in fitted]),
        "speed_up": {
            str(n): statistics.median(
                whole / part
                for whole, part in zip(
                    found["full causal"][n]["seconds"], found["banded"][n]["seconds"], strict=True
                )
            )
            for n in LENGTHS
        },
    }


def page(results: dict) -> str:
    """The results as a page."""
    lines = [
        "| tokens | dense mask | full causal | banded | full / banded | memory, banded |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for n in map(str, LENGTHS):
        cells = [results["medians"][form].get(n) for form in FORMS]
        times = [f"{1000 * cell['seconds']:.1f} ms" if cell else "—" for cell in cells]
        memory = f"{results['medians']['banded'][n]['bytes'] / 2**20:.1f} MB"
        row = [f"{int(n):,}", *times, f"{results['speed_up'][n]:.1f}×", memory]
        lines.append(f"| {' | '.join(row)} |")
    engine = [
        "| tokens | full causal | dense mask | banded | memory, dense mask | memory, banded |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for n in map(str, LENGTHS):
        cells = [results["engine"][form].get(n) for form in ENGINE]
        row = [f"{cell['seconds']:.2f} s" if cell else "—" for cell in cells]
        row += [f"{cell['bytes'] / 2**20:,.0f} MB" if cell else "—" for cell in cells[1:]]
        engine.append(f"| {int(n):,} | {' | '.join(row)} |")
    about = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    grown = results["exponents"]
    return (
        "# Full attention and a window, as the text grows\n\nThis page is written by `python -m "
        "benchmarks.windows`; the single runs are in [windows.json](windows.json).\n\n"
        f"One attention of {HEADS} query heads and {KV_HEADS} key-value head of {DIM} dimensions, "
        f"float32, a window of {WINDOW:,}; {about}. Fresh processes in turn, "
        f"{results['rounds']} rounds, best of {REPEATS} calls in each; the dense mask stops at "
        f"{DENSE_UP_TO:,} tokens. Memory: what the calls add at their peak.\n\n"
        + "\n".join(lines)
        + f"\n\nFrom {FIT_FROM:,} tokens on, time grows with the power {grown['full causal']:.2f} "
        f"of the length for full attention and {grown['banded']:.2f} for the band; the band's "
        f"memory with the power {results['memory_exponent']:.2f}.\n\n"
        "The optimised engine over a prompt: two layers of the 0.5B's shapes, bfloat16, the same "
        f"window.\n\n" + "\n".join(engine) + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", nargs=2, metavar=("FORM", "LENGTH"))
    options = parser.parse_args()
    if options.measure:
        measure(options.measure[0], int(options.measure[1]))
        return
    forms = (*FORMS, *ENGINE)
    found: dict[str, dict[int, dict[str, list[float]]]] = {form: {} for form in forms}
    for _ in range(options.rounds):
        for length in LENGTHS:
            for form in forms:
                if "dense mask" in form and length > DENSE_UP_TO:
                    continue
                command = ["-m", "benchmarks.windows", "--measure", form, str(length)]
                run = subprocess.run(
                    [sys.executable, *command], check=True, capture_output=True, text=True
                )
                runs = found[form].setdefault(length, {"seconds": [], "bytes": []})
                for key, value in json.loads(run.stdout.splitlines()[-1]).items():
                    runs[key].append(value)
    results = {"machine": machine(), "rounds": options.rounds, **summary(found), "runs": found}
    (HERE / "windows.json").write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "windows.md").write_text(page(results))
    print(page(results))


if __name__ == "__main__":
    main()
