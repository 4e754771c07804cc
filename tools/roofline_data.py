"""Store what the roofline's figure shows: `python tools/roofline_data.py`.

Takes the machine's limits and the measured passes from benchmarks/engines.json and
benchmarks/steps.json; writes qwen2_book/widgets/roofline.json. Both runs must be of one machine.
"""

import json
import statistics
import sys
from itertools import accumulate
from pathlib import Path
from typing import Any

from qwen2_book.widgets.roofline import STORED, WEIGHTS

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def data(engines: dict[str, Any], steps: dict[str, Any]) -> dict[str, Any]:
    """Limits, ceilings of kernels, and points [weights, prefill, batch, tokens, tokens a second].

    The bandwidth is the fastest reading of either run, the kernels' own included; the speed is that
    of a large float32 product. The ceilings are those of each kernel, for 1, 2, 4, 8 and 16 rows,
    with a matrix that stays in the processor's cache; float32 matrices are too large to have one.
    """
    kernels, limits = steps["kernels"], [engines["limits"], steps["limits"]]
    read = [each["bytes"] * each["memory"]["1"] for each in kernels.values()]
    read += [value for found in limits for key, value in found.items() if "bytes" in key]
    speed = max(found["float32 operations/s"] for found in limits)
    ceilings = {}
    for name, each in kernels.items():
        rates = (2 * each["near"][str(rows)] for rows in (1, 2, 4, 8, 16))
        if name != "float32":
            ceilings[name] = [round(best, -6) for best in accumulate(rates, max)]
    points: dict[tuple[int, int, int, int], float] = {}
    for name, lengths in steps["batches"].items():
        for batch, took in lengths.items():
            rate = int(batch) / statistics.median(took)
            points[WEIGHTS.index(name), 0, int(batch), 128] = rate
    for length, took in steps["contexts"]["full"].items():
        points[3, 0, 1, int(length)] = 1 / statistics.median(took)
    for cell in engines["speeds"]:
        for what, found in (("prefill", cell["prefill"]), ("decode", cell["decode"])):
            for place, name in enumerate(WEIGHTS):
                key = (place, int(what == "prefill"), cell["batch"], cell["prompt"])
                points[key] = statistics.median(found[f"qwen2_book {name}"])
    machine = engines["machine"]
    return {
        "machine": f"{machine['processor']}, {machine['threads']} threads",
        "bandwidth": round(max(read), -6),
        "speed": round(speed, -6),
        "ceilings": ceilings,
        "points": [[*key, round(rate, 2)] for key, rate in sorted(points.items())],
    }


def main() -> None:
    runs = [json.loads((BENCHMARKS / f"{name}.json").read_text()) for name in ("engines", "steps")]
    if runs[0]["machine"]["processor"] != runs[1]["machine"]["processor"]:
        sys.exit("benchmarks/engines.json and steps.json are of two machines: run both on one.")
    STORED.write_text(json.dumps(data(*runs), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
