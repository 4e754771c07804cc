"""Store the router of a small mixture for the router figure: `python tools/router_data.py`.

The mixture of `tools/expert_training.py` with the auxiliary loss over all layers together, seed 0,
trained anew in about half a minute, then run over four sentences with top-1 to top-8. Written to
`qwen2_book/widgets/router_flow.json`.
"""

import json

import torch
from expert_training import HELD_OUT, RATE, STEPS, batches, blocks, run
from gate_training import TOKENIZER
from torch import Tensor

from qwen2_book import Qwen2, Tokenizer
from qwen2_book.moe import MixtureOfExperts
from qwen2_book.training.loss import mean_loss
from qwen2_book.widgets import router_flow

SENTENCES = {
    "a story": "One sunny morning, Lily and Oscar were in the park.",
    "a question": "Question: How many nuts does Noah have?\nAnswer:",
    "故事": "一个下雨的下午，小丽和小军在公园。小丽有一个蓝色的球。",
    "facts": "问：德国的首都是哪里？\n答：",
}
TOP_KS = range(1, 9)


@torch.no_grad()
def routing(model: Qwen2, ids: list[int]) -> tuple[Tensor, Tensor]:
    """Probabilities (layers, tokens, experts) and the shared gate (layers, tokens) of a text."""
    found: list[tuple[Tensor, Tensor]] = []

    def look(part: MixtureOfExperts, inputs: tuple[Tensor]) -> None:
        tokens = inputs[0][0]
        shared = part.shared_expert_gate(tokens)[:, 0].sigmoid()
        found.append((part.gate(tokens).softmax(-1), shared))

    hooks = [part.register_forward_pre_hook(look) for part in blocks(model)]
    model(torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    probabilities, shared = zip(*found, strict=True)
    return torch.stack(probabilities), torch.stack(shared)


def with_top_k(model: Qwen2, top_k: int) -> Qwen2:
    """The same model, every layer's router set to another number of experts."""
    for part in blocks(model):
        part.top_k = top_k
    return model


def figure_data(model: Qwen2, held_out: list) -> dict:
    """What the figure stores of a trained mixture."""
    tokenizer = Tokenizer.from_file(TOKENIZER)
    texts = {name: tokenizer.encode(text) for name, text in SENTENCES.items()}
    probabilities, shared, losses = [], [], []
    trained = model.config.num_experts_per_tok
    for top_k in TOP_KS:
        with_top_k(model, top_k)
        parts = [routing(model, ids) for ids in texts.values()]
        probabilities.append(torch.cat([p for p, _ in parts], 1))
        shared.append(torch.cat([s for _, s in parts], 1))
        losses.append(round(mean_loss(model, held_out), 3))
    with_top_k(model, trained)
    return {
        "source": f"trained with top-{trained}",
        "layers": model.config.num_hidden_layers,
        "experts": model.config.num_experts,
        "losses": losses,
        "sentences": [{"name": n, "tokens": tokenizer.pieces(i)} for n, i in texts.items()],
        "probabilities": router_flow.pack(torch.stack(probabilities).numpy()),
        "shared": router_flow.pack(torch.stack(shared).numpy()),
    }


def main() -> None:
    torch.set_num_threads(1)
    data = batches(STEPS + HELD_OUT)
    model, _, _ = run("mixture", RATE, 0, data, "pooled")
    text = json.dumps(figure_data(model, data[STEPS:]), ensure_ascii=False, separators=(",", ":"))
    router_flow.STORED.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
