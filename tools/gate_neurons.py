"""Store a dozen neurons over a text for the gate figure: `python tools/gate_neurons.py`.

Needs QWEN2_BOOK_CHECKPOINT. The search of chapter 06 (separation of labelled tokens, layers 2 and
up) over `notebooks/data/06_texts/search.txt`; the values that are stored are those of
`check.txt`, which the search has not seen. One neuron is drawn at random, for comparison. Written
to `qwen2_book/widgets/gate_neurons.json`.
"""

import json
import re
from pathlib import Path

import torch
from real_model import real_model
from torch import Tensor

from qwen2_book import Tokenizer
from qwen2_book.neurons import gates, separation
from qwen2_book.widgets import gate_neurons

TEXTS = Path(__file__).parent.parent / "notebooks" / "data" / "06_texts"
FIRST_LAYER = 2


def marks(tokenizer: Tokenizer, ids: list[int], patterns: dict[str, str]) -> Tensor:
    """(labels, tokens): which token has which label; the first token, an oddity, is left out."""
    pieces = tokenizer.pieces(ids)[1:]
    found = [[bool(re.match(p, piece)) for piece in pieces] for p in patterns.values()]
    return torch.tensor(found)


def best(values: Tensor, labels: Tensor) -> list[tuple[int, int]]:
    """For each label the neuron that separates it best; among equals, that with the widest gap."""
    scores = []
    for layer in values:
        marked = labels.float()
        inside = marked.sum(1, keepdim=True)
        outside = layer.shape[0] - inside
        rest = (1 - marked) @ layer / outside
        spread = ((1 - marked) @ layer.square() / outside - rest.square()).sqrt()
        scores.append(separation(layer, labels) + 1e-4 * (marked @ layer / inside - rest) / spread)
    table = torch.stack(scores, 1)
    return [divmod(int(row.argmax()), values.shape[-1]) for row in table.flatten(1)]


def main() -> None:
    model, tokenizer = real_model()
    patterns = json.loads((TEXTS / "labels.json").read_text(encoding="utf-8"))
    texts = {n: (TEXTS / f"{n}.txt").read_text(encoding="utf-8") for n in ("search", "check")}
    ids = {name: tokenizer.encode(text) for name, text in texts.items()}
    searched = gates(model, ids["search"])[FIRST_LAYER:, 1:]
    found = best(searched, marks(tokenizer, ids["search"], patterns))
    chosen = [(layer + FIRST_LAYER, neuron) for layer, neuron in found]
    generator = torch.Generator().manual_seed(6)
    drawn = int(torch.randint(model.config.intermediate_size, (1,), generator=generator))
    neurons = [
        {"layer": layer, "neuron": neuron, "label": label, "name": label}
        for (layer, neuron), label in zip(chosen, patterns, strict=True)
    ]
    neurons.append({"layer": 12, "neuron": drawn, "label": "comma", "name": "drawn at random"})
    places = [(each["layer"], each["neuron"]) for each in neurons]
    packed = {}
    for name, part in (("gates", "gate_proj"), ("ups", "up_proj")):
        whole = gates(model, ids["check"], part)
        rows = torch.stack([whole[layer, 1:, neuron] for layer, neuron in places])
        packed[name] = gate_neurons.pack(rows.numpy())
        del whole
    pieces = tokenizer.pieces(ids["check"])[1:]
    begins = [0, pieces.index("Most"), pieces.index("港"), pieces.index("```")]
    names = ["the harbour", "the crews", "Chinese", "Python"]
    labels = marks(tokenizer, ids["check"], patterns)
    stored = {
        "source": model.name_or_path,
        "passages": gate_neurons.passages(pieces, begins, names),
        "labels": {
            n: row.nonzero()[:, 0].tolist() for n, row in zip(patterns, labels, strict=True)
        },
        "neurons": neurons,
        **packed,
    }
    text = json.dumps(stored, ensure_ascii=False, separators=(",", ":"))
    gate_neurons.STORED.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
