"""What the benchmarks share: the machine in words, medians and ratios of interleaved rounds."""

import platform
import resource
import statistics
import sys
from importlib.metadata import version
from pathlib import Path

import torch


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
        "transformers": version("transformers"),
    }


def resident() -> int:
    """The most memory that this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
