"""Store the runs that the figure `dpo_plane` shows: `python tools/dpo_plane_data.py`.

Taken from notebooks/data/18_preferences.json (tools/preference_training.py) into
qwen2_book/widgets/dpo_plane.json: the offline runs at all betas, with the SFT term and without.
"""

import json

from preference_training import BETAS, EVERY, SEEDS, STEPS, STORED

from qwen2_book.widgets.dpo_plane import CURVES
from qwen2_book.widgets.dpo_plane import STORED as TARGET


def main() -> None:
    stored = json.loads(STORED.read_text(encoding="utf-8"))["runs"]
    found = {
        (r["run"]["arm"], r["run"]["seed"]): r for r in stored if r["run"]["part"] == "offline"
    }
    runs = [
        [
            [[found[f"dpo {beta:g}{extra}", seed][name] for name in CURVES] for seed in SEEDS]
            for beta in BETAS
        ]
        for extra in ("", " + sft")
    ]
    data = {"steps": [*range(0, STEPS + 1, EVERY)], "betas": BETAS, "answers": 24, "runs": runs}
    TARGET.write_text(json.dumps(data, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
