"""One mixture-of-experts block over the number of tokens, beside transformers' block.

    python -m benchmarks.experts [--rounds 9]

The same weights in all forms, which take turns; a ratio is taken within a round. Writes
benchmarks/experts.json and the table in benchmarks/experts.md. Needs no checkpoint.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2MoeConfig
from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeSparseMoeBlock

from benchmarks.machine import machine
from qwen2_book.config import Qwen2Config
from qwen2_book.moe import MixtureOfExperts

HERE = Path(__file__).parent
SHAPE: dict[str, Any] = {  # a quarter of Qwen2-57B-A14B in each direction
    "hidden_size": 896,
    "num_experts": 64,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 640,
    "shared_expert_intermediate_size": 5120,
}
TOKENS = (1, 4, 16, 64, 512)
LOOP_UP_TO = 16
THEIRS = ("eager", "grouped_mm")  # batched_mm, which copies weights, took 3 to 20 times as long


def by_token(block: MixtureOfExperts, x: Tensor) -> Tensor:
    """The loop anyone can read: token by token, expert by expert."""
    tokens = x.flatten(0, 1)
    weights, chosen = block.route(tokens)
    rows = []
    for token, weight, numbers in zip(tokens, weights, chosen.tolist(), strict=True):
        gate = block.shared_expert_gate(token).sigmoid()
        parts = [w * block.experts[e](token) for w, e in zip(weight, numbers, strict=True)]
        rows.append(sum(parts) + gate * block.shared_expert(token))
    return torch.stack(rows).view_as(x)


def by_expert(block: MixtureOfExperts, x: Tensor) -> Tensor:
    """Sorted tokens, whatever their number."""
    tokens = x.flatten(0, 1)
    shared = block.shared_expert_gate(tokens).sigmoid() * block.shared_expert(tokens)
    return (block.by_expert(tokens, *block.route(tokens)) + shared).view_as(x)


def same_weights(ours: MixtureOfExperts, implementation: str) -> Qwen2MoeSparseMoeBlock:
    """transformers' block with our weights; it keeps the experts' gate and up as one matrix."""
    config = Qwen2MoeConfig(**SHAPE, norm_topk_prob=False)
    config._experts_implementation = implementation
    block = Qwen2MoeSparseMoeBlock(config).eval()
    names = {"gate.weight", "shared_expert_gate.weight"}
    state = {n: w for n, w in ours.state_dict().items() if n in names or "shared_expert." in n}
    experts: Any = ours.experts
    joined = [torch.cat((e.gate_proj.weight, e.up_proj.weight)) for e in experts]
    state["experts.gate_up_proj"] = torch.stack(joined)
    state["experts.down_proj"] = torch.stack([e.down_proj.weight for e in experts])
    block.load_state_dict(state)
    return block


def summary(seconds: dict[str, dict[int, list[float]]]) -> dict:
    """Medians in seconds, and for each of their forms the ratio theirs / ours in each round."""
    medians = {
        form: {str(n): statistics.median(runs) for n, runs in each.items()}
        for form, each in seconds.items()
    }
    ratios = {
        form: {
            str(n): sorted(a / b for a, b in zip(runs, seconds["package"][n], strict=True))
            for n, runs in each.items()
        }
        for form, each in seconds.items()
        if form != "package"
    }
    return {"medians": medians, "ratios": ratios}


def page(results: dict) -> str:
    """The results as a page."""
    forms = list(results["medians"])
    lines = [
        "| tokens | " + " | ".join(forms) + " |",
        "|---:|" + "---:|" * len(forms),
    ]
    for n in map(str, TOKENS):
        cells = []
        for form in forms:
            took, ratio = results["medians"][form].get(n), results["ratios"].get(form, {}).get(n)
            against = f" ({statistics.median(ratio):.2f}×)" if ratio else ""
            cells.append(f"{1000 * took:.2f} ms{against}" if took else "—")
        lines.append(f"| {n} | " + " | ".join(cells) + " |")
    about = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    shape = ", ".join(f"{key} {value:,}" for key, value in SHAPE.items())
    return (
        "# A mixture of experts, over the number of tokens\n\nThis page is written by `python -m "
        "benchmarks.experts`; the numbers are in [experts.json](experts.json).\n\n"
        f"One block, float32: {shape}. {about}. {results['rounds']} interleaved rounds, the "
        "median; in parentheses the median of the ratios to the package's block within a round, "
        "above 1 where the package is faster. The package sorts the tokens by expert from two "
        "tokens on and takes the path for a single token "
        "otherwise. `eager` and `grouped_mm` are forms of transformers' block.\n\n"
        + "\n".join(lines)
        + "\n"
    )


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.manual_seed(0)
    ours = MixtureOfExperts(Qwen2Config(**SHAPE)).eval()
    forms: dict[str, Callable[[Tensor], Tensor]] = {
        "package": ours,
        "token by token": lambda x: by_token(ours, x),
        "sorted": lambda x: by_expert(ours, x),
    }
    forms |= {name: same_weights(ours, name) for name in THEIRS}
    seconds: dict[str, dict[int, list[float]]] = {name: {} for name in forms}
    for count in TOKENS:
        left_out = {"token by token"} if count > LOOP_UP_TO else set()
        for turn in range(options.rounds + 1):
            x = torch.randn(1, count, SHAPE["hidden_size"])
            expected = ours(x)
            for name, form in forms.items():
                if name in left_out:
                    continue
                began = time.perf_counter()
                found = form(x)
                took = time.perf_counter() - began
                torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)
                if turn:  # the first round warms up
                    seconds[name].setdefault(count, []).append(took)
    results = {"machine": machine(), "rounds": options.rounds, **summary(seconds)}
    rounded = json.loads(json.dumps(results), parse_float=lambda x: float(f"{float(x):.4g}"))
    (HERE / "experts.json").write_text(json.dumps(rounded, indent=1) + "\n")
    (HERE / "experts.md").write_text(page(rounded))
    print(page(rounded))


if __name__ == "__main__":
    main()
