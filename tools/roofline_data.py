"""Store what the roofline's figure shows: `python tools/roofline_data.py`.

Takes the machine's limits and the measured passes from benchmarks/steps.json, one run with one
number of threads; writes qwen2_book/widgets/roofline.json.
"""

import json
import statistics
from itertools import accumulate
from pathlib import Path
from typing import Any

from qwen2_book.widgets.roofline import STORED, WEIGHTS

PROMPT = 256  # tokens of the prompt in benchmarks/steps.py
BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def data(steps: dict[str, Any]) -> dict[str, Any]:
    """Limits, ceilings of kernels, and points [weights, prefill, batch, tokens, tokens a second].

    The bandwidth is the fastest reading of the run, the kernels' own included; the speeds are those
    of large products in float32 and in what bfloat16 is multiplied in. The ceilings are those of
    each kernel for the few rows that it serves, wherever its matrix was then: the better reading.
    """
    kernels, limits = steps["kernels"], steps["limits"]
    read = [each["bytes"] * each["memory"]["1"] for each in kernels.values()]
    read += [value for key, value in limits.items() if "bytes" in key]
    ceilings = {}
    for name, each in kernels.items():
        few = [rows for rows in each["near"] if int(rows) <= each["few"]]
        rates = (2 * max(each["near"][rows], each["memory"][rows]) for rows in few)
        ceilings[name] = [round(best, -6) for best in accumulate(rates, max)]
    points: dict[tuple[int, int, int, int], float] = {}
    for name, lengths in steps["batches"].items():
        for batch, took in lengths.items():
            rate = int(batch) / statistics.median(took)
            points[WEIGHTS.index(name), 0, int(batch), 128] = rate
    for length, took in steps["contexts"]["full"].items():
        points.setdefault((3, 0, 1, int(length)), 1 / statistics.median(took))
    for place, name in enumerate(WEIGHTS[:2]):
        took = statistics.median(steps["chain"]["prefill"][name])
        points[place, 1, 1, PROMPT] = PROMPT / took
    speeds = [limits[f"{name} operations/s"] for name in WEIGHTS[:2]]
    speeds[1] = max(speeds)  # where bfloat16 is emulated, the package multiplies in float32
    machine, threads = steps["machine"], int(steps["machine"]["threads"])
    return {
        "machine": f"{machine['processor']}, {threads} thread{'s' * (threads > 1)}",
        "bandwidth": round(max(read), -6),
        "speeds": [round(speeds[place], -6) for place in (0, 1, 1, 1)],
        "ceilings": ceilings,
        "points": [[*key, round(rate, 2)] for key, rate in sorted(points.items())],
    }


def main() -> None:
    steps = json.loads((BENCHMARKS / "steps.json").read_text(encoding="utf-8"))
    STORED.write_text(json.dumps(data(steps), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
