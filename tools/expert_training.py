"""Train small mixtures of experts for chapter 08: `python tools/expert_training.py [PART ...]`.

Parts, each made of five seeds (first weights and order of the batches) on the little world:

- balance: two mixtures, with the auxiliary loss over all layers pooled (two weights), layer by
  layer, and without; which share of the tokens' choices each expert gets, over the steps.
- dense: a mixture against a dense network with the same ACTIVE parameters, at three learning
  rates; at one of them also a dense network with the same TOTAL, and a mixture whose weights are
  renormalised.
- upcycle: mixtures cut from a trained dense network, in four ways, trained on beside it.

Written to `notebooks/data/08_experts.json`. One thread; all parts take about twenty minutes on a
busy machine. Runs that the file already holds are not made again.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from gate_training import Shuffled, batches
from torch import Tensor, nn

from qwen2_book import Qwen2, Qwen2Config
from qwen2_book.feedforward import SwiGLU
from qwen2_book.moe import MixtureOfExperts
from qwen2_book.training.data import Batch, layout
from qwen2_book.training.loop import Settings, train
from qwen2_book.training.loss import balanced_loss, language_loss, mean_loss

STORED = Path(__file__).parent.parent / "notebooks" / "data" / "08_experts.json"
SEEDS = range(5)
HIDDEN, LAYERS, LENGTH, STEPS, HELD_OUT, MORE = 64, 3, 128, 200, 16, 100
RATE, RATES = 0.008, (0.004, 0.008, 0.016)
WATCHED = 10  # steps between two looks at the router
DENSE = {"intermediate_size": 176}
TOTAL = {"intermediate_size": 792}
MIXTURE = {  # one routed expert in eight; the shared one as wide as the chosen: as in the 57B
    "num_experts": 16,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 44,
    "shared_expert_intermediate_size": 88,
}
BARE = MIXTURE | {  # one expert a token, and hardly a shared one
    "num_experts_per_tok": 1,
    "moe_intermediate_size": 168,
    "shared_expert_intermediate_size": 8,
}
LOUD = MIXTURE | {"norm_topk_prob": True}  # the chosen weights sum to one
KINDS: dict[str, dict[str, Any]] = {
    "dense": DENSE,
    "dense, total": TOTAL,
    "mixture": MIXTURE,
    "bare": BARE,
    "renormalised": LOUD,
}
LOSSES: dict[str, Callable[[Qwen2, Batch], Tensor]] = {
    "none": language_loss,
    "pooled": balanced_loss(0.001),
    "pooled, 0.01": balanced_loss(0.01),
    "by layer": balanced_loss(0.01, by_layer=True),
}
WAYS = ("copied", "shuffled", "half anew", "all anew")


def configuration(**changes: Any) -> Qwen2Config:
    """Three layers of 64."""
    settings = {
        "vocab_size": 2112,
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_theta": 10_000.0,
        "max_position_embeddings": LENGTH,
        "tie_word_embeddings": True,
        "initializer_range": 0.05,
    }
    return Qwen2Config(**{**settings, **DENSE, **changes})


def blocks(model: Qwen2) -> list[Any]:
    """The feed-forward part of every layer: a SwiGLU or a MixtureOfExperts."""
    return [layer.mlp for layer in model.model.layers]


def network(kind: str, seed: int) -> Qwen2:
    """Random weights; embedding, attention and norms of a seed are the same for all kinds."""
    torch.manual_seed(seed)
    common = Qwen2(configuration()).state_dict()
    model = Qwen2(configuration(**KINDS[kind]))
    outside = {name: weight for name, weight in common.items() if ".mlp." not in name}
    model.load_state_dict(outside, strict=False)
    for part in blocks(model):
        for weight in part.parameters():
            nn.init.normal_(weight, std=model.config.initializer_range)
    return model


@torch.no_grad()
def choices(model: Qwen2, batch: Batch) -> Tensor:
    """(layers, experts): which share of the tokens' choices each expert gets on a batch."""
    found: list[Tensor] = []

    def look(part: MixtureOfExperts, inputs: tuple[Tensor]) -> None:
        chosen = part.route(inputs[0].flatten(0, 1))[1].flatten()
        found.append(chosen.bincount(minlength=len(part.experts)) / len(chosen))

    hooks = [part.register_forward_pre_hook(look) for part in blocks(model)]
    model.hidden_states(batch.token_ids, *layout(batch.documents, model.config))
    for hook in hooks:
        hook.remove()
    return torch.stack(found)


def run(
    kind: str, rate: float, seed: int, data: list[Batch], loss: str = "none"
) -> tuple[Qwen2, float, list[Tensor]]:
    """Train: the model, its held-out loss in nats a token, the experts' shares over the steps."""
    model = network(kind, seed)
    settings = Settings(steps=STEPS, peak_rate=rate, warm_up=20, final_share=0.1)
    tested = data[STEPS : STEPS + HELD_OUT]
    shares: list[Tensor] = []

    def watch(metrics: list) -> None:
        if KINDS[kind].get("num_experts") and metrics[-1]["step"] % WATCHED == 0:
            shares.append(choices(model, tested[0]))

    if KINDS[kind].get("num_experts"):
        shares.append(choices(model, tested[0]))
    source = Shuffled(data[:STEPS], seed)
    metrics = train(model, source, settings, loss=LOSSES[loss], held_out=tested, on_step=watch)
    return model, metrics[-1]["held_out"], shares


@torch.no_grad()
def cut(layer: SwiGLU, config: Qwen2Config, way: str) -> MixtureOfExperts:
    """Experts from copies of a dense layer, in one of the WAYS; the generator is torch's own.

    Every copy holds all neurons; an expert is the next `moe_intermediate_size` of them, the shared
    expert the first of one more copy. A small router starts near p = 1 / experts and the shared
    gate at 1 / 2, so `down_proj` is scaled by their inverse: a chosen neuron counts as before.
    """
    mixture, width = MixtureOfExperts(config), layer.gate_proj.out_features
    nn.init.normal_(mixture.gate.weight, std=0.02)
    nn.init.zeros_(mixture.shared_expert_gate.weight)
    needed = config.num_experts * config.moe_intermediate_size
    order = torch.randperm if way != "copied" else torch.arange
    neurons = torch.cat([order(width) for _ in range(-(-needed // width))])[:needed]
    groups = [*neurons.split(config.moe_intermediate_size)]
    groups.append(order(width)[: config.shared_expert_intermediate_size])
    scales = [config.num_experts] * config.num_experts + [2]
    for expert, group, scale in zip(
        [*mixture.experts, mixture.shared_expert], groups, scales, strict=True
    ):
        expert.gate_proj.weight.copy_(layer.gate_proj.weight[group])
        expert.up_proj.weight.copy_(layer.up_proj.weight[group])
        expert.down_proj.weight.copy_(layer.down_proj.weight[:, group] * scale)
        for weight in expert.parameters():
            anew = torch.rand_like(weight) < {"half anew": 0.5, "all anew": 1.0}.get(way, 0.0)
            weight.copy_(torch.where(anew, torch.randn_like(weight) * weight.std(), weight))
    return mixture


def upcycled(dense: Qwen2, way: str, seed: int) -> Qwen2:
    """The dense model with every feed-forward layer cut into a mixture."""
    torch.manual_seed(seed)
    model = Qwen2(configuration(**MIXTURE))
    model.load_state_dict(dense.state_dict(), strict=False)
    for layer, old in zip(model.model.layers, blocks(dense), strict=True):
        layer.mlp = cut(old, model.config, way)
    return model


def go_on(model: Qwen2, seed: int, data: list[Batch], loss: str) -> list[float]:
    """Held-out loss before and after some more steps, on batches not seen before."""
    tested = data[STEPS : STEPS + HELD_OUT]
    settings = Settings(steps=MORE, peak_rate=RATE / 2, warm_up=10, final_share=0.1)
    before = mean_loss(model, tested)
    source = Shuffled(data[STEPS + HELD_OUT :], seed)
    after = train(model, source, settings, loss=LOSSES[loss], held_out=tested)[-1]["held_out"]
    return [round(before, 4), round(after, 4)]


def effective(shares: Tensor) -> float:
    """The effective number of experts, exp of the entropy of the shares: mean over the layers."""
    return float(torch.special.entr(shares).sum(-1).exp().mean())


def wanted(parts: list[str]) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """What is to be run: part, seed, and what else names the run."""
    if "balance" in parts:
        for kind, losses in (("mixture", LOSSES), ("bare", ("none", "by layer"))):
            for loss in losses:
                yield from (("train", s, {"kind": kind, "loss": loss, "rate": RATE}) for s in SEEDS)
    if "upcycle" in parts:
        yield from (("upcycle", seed, {}) for seed in SEEDS)
    if "dense" in parts:
        for rate in sorted(RATES, key=lambda rate: rate != RATE):
            for kind, loss in (("dense", "none"), ("mixture", "pooled")):
                yield from (("train", s, {"kind": kind, "loss": loss, "rate": rate}) for s in SEEDS)
        for kind, loss in (("dense, total", "none"), ("renormalised", "pooled")):
            yield from (("train", s, {"kind": kind, "loss": loss, "rate": RATE}) for s in SEEDS)


def main() -> None:
    torch.set_num_threads(1)
    data = batches(STEPS + HELD_OUT + MORE)
    stored: dict[str, Any] = {"command": "python tools/expert_training.py", "runs": []}
    if STORED.exists():
        stored = json.loads(STORED.read_text(encoding="utf-8"))
    done = {json.dumps(r["run"]) for r in stored["runs"]}
    for part, seed, names in wanted(sys.argv[1:] or ["balance", "dense", "upcycle"]):
        name = {"part": part, **names, "seed": seed}
        if json.dumps(name) in done:
            continue
        done.add(json.dumps(name))
        found: dict[str, Any] = {"run": name}
        if part == "train":
            _, loss, shares = run(names["kind"], names["rate"], seed, data, names["loss"])
            found["loss"] = round(loss, 4)
            found["effective"] = [round(effective(each), 2) for each in shares]
            if seed == 0 and shares and names["rate"] == RATE:
                found["shares"] = [(each * 1000).round().int().tolist() for each in shares]
        else:
            dense, _, _ = run("dense", RATE, seed, data)
            for way in WAYS:
                found[way] = go_on(upcycled(dense, way, seed), seed, data, "pooled")
            found["dense"] = go_on(dense, seed, data, "none")
        stored["runs"].append(found)
        print(name, found.get("loss"), found.get("shuffled"), flush=True)
        lines = ",\n".join(json.dumps(r, separators=(",", ":")) for r in stored["runs"])
        head = json.dumps(stored["command"])
        text = f'{{"command": {head}, "runs": [\n{lines}\n]}}\n'
        STORED.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
