"""Train small networks with three feed-forward layers: `python tools/gate_training.py`.

ReLU, GELU and SwiGLU at equal parameters, on the little world: the same batches in the same order,
three learning rates, six seeds each (a seed sets the first weights and the order of the batches).
Written to `notebooks/data/06_gate_training.json`: the held-out loss of every run. One thread; a run
takes seconds, all of them about ten minutes. Runs that the file already holds are not made again.
"""

import itertools
import json
from pathlib import Path

import torch
from torch import Tensor, nn

from qwen2_book import Qwen2, Qwen2Config, Tokenizer
from qwen2_book.feedforward import SwiGLU
from qwen2_book.training.data import Batch, PackedSource, whole
from qwen2_book.training.loop import Settings, train
from qwen2_book.world.documents import document

STORED = Path(__file__).parent.parent / "notebooks" / "data" / "06_gate_training.json"
TOKENIZER = STORED.parent / "06_tokenizer"  # of the stored runs, whatever the tiny model has
KINDS = ("ReLU", "GELU", "SwiGLU")
RATES = (0.004, 0.008, 0.016)  # 0.032 and 0.064 were tried with ReLU and SwiGLU: far worse
SEEDS = range(6)
HIDDEN, GATED, PLAIN = 64, 176, 264  # 3 * 64 * 176 = 2 * 64 * 264 weights in a layer
STEPS, ROWS, LENGTH, HELD_OUT = 200, 4, 128, 16


class MLP(nn.Module):
    """down(activation(up(x))), no biases: the layer without a gate."""

    def __init__(self, hidden: int, width: int, activation: nn.Module) -> None:
        super().__init__()
        self.up_proj = nn.Linear(hidden, width, bias=False)
        self.down_proj = nn.Linear(width, hidden, bias=False)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.activation(self.up_proj(x)))


def feed_forward(kind: str) -> nn.Module:
    """A layer of one of the three kinds; all have the same number of weights."""
    if kind == "SwiGLU":
        return SwiGLU(HIDDEN, GATED)
    return MLP(HIDDEN, PLAIN, nn.ReLU() if kind == "ReLU" else nn.GELU())


def network(kind: str, seed: int) -> Qwen2:
    """A Qwen2 of two layers with random weights, its feed-forward layers of one kind."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=2112,
        hidden_size=HIDDEN,
        intermediate_size=GATED,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        rope_theta=10_000.0,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
        initializer_range=0.05,
    )
    model = Qwen2(config)  # embedding, attention and norms: the same for all kinds of a seed
    for layer in model.model.layers:
        layer.mlp = feed_forward(kind)
        for weight in layer.mlp.parameters():
            nn.init.normal_(weight, std=config.initializer_range)
    return model


class Shuffled:
    """Stored batches in the order that a seed gives them."""

    def __init__(self, batches: list[Batch], seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.order = torch.randperm(len(batches), generator=generator).tolist()
        self.batches, self.fingerprint = batches, {"data": "gate training", "seed": seed}

    def batch(self, index: int) -> Batch:
        return self.batches[self.order[index]]


def batches(count: int, seed: int = 6) -> list[Batch]:
    """The first batches of a stream of the little world."""
    tokenizer = Tokenizer.from_file(TOKENIZER)
    end = tokenizer.added["<|endoftext|>"]

    def samples(batch: int):
        for number in range(batch * 30, batch * 30 + 30):
            yield whole([*tokenizer.encode(document(seed, number)), end])

    source = PackedSource(samples, ROWS, LENGTH, "gate training")
    return [source.batch(k) for k in range(count)]


def run(kind: str, rate: float, seed: int, data: list[Batch], steps: int = STEPS) -> float:
    """Train one network and return its held-out loss in nats a token."""
    settings = Settings(steps=steps, peak_rate=rate, warm_up=20, final_share=0.1)
    source, tested = Shuffled(data[:STEPS], seed), data[STEPS:]
    return train(network(kind, seed), source, settings, held_out=tested)[-1]["held_out"]


def main() -> None:
    torch.set_num_threads(1)
    data = batches(STEPS + HELD_OUT)
    runs = json.loads(STORED.read_text())["runs"] if STORED.exists() else []
    done = {(each["kind"], each["rate"]) for each in runs}
    for kind, rate in itertools.product(KINDS, RATES):
        if (kind, rate) in done:
            continue
        losses = [round(run(kind, rate, seed, data), 4) for seed in SEEDS]
        runs.append({"kind": kind, "rate": rate, "losses": losses})
        runs.sort(key=lambda each: (KINDS.index(each["kind"]), each["rate"]))
        print(kind, rate, losses, flush=True)
        stored = {
            "command": "python tools/gate_training.py",
            "parameters": sum(p.numel() for p in network("SwiGLU", 0).parameters()),
            "tokens": STEPS * ROWS * LENGTH,
            "seeds": list(SEEDS),
            "runs": runs,
        }
        STORED.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
