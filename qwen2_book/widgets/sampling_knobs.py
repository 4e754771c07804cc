"""A real next-token distribution under each knob of the sampler."""

import base64
import json
import math
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import traitlets

from qwen2_book.sampling import Sampler
from qwen2_book.widgets.base import HERE, Figure, source

STORED = HERE / "sampling_knobs.json"  # written by tools/sampling_data.py
KEPT, LONGEST = 300, 48  # likeliest tokens stored of each prompt; tokens of a prompt at most
TEMPERATURES = [step / 20 for step in range(41)]  # the slider's steps


@lru_cache(maxsize=1)
def stored() -> dict[str, Any]:
    """The prompts, their likeliest tokens with logits, and the rest as sums."""
    found: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    return found


def shown(raw: bytes) -> str:
    """A token as text that can be drawn alone: bytes that are no text stand in hexadecimal."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return f"⟨{raw.hex(' ')}⟩"
    text = "".join(c if c.isprintable() or c in " \n\t" else f"⟨U+{ord(c):04X}⟩" for c in text)
    return f"◌{text}" if text and unicodedata.category(text[0])[0] == "M" else text


def measured(logits: np.ndarray, seen: list[int], texts: dict[int, str]) -> dict[str, Any]:
    """What is stored of a distribution: the likeliest tokens and those of the prompt one by one.

    Of all others, for each temperature of the slider, the logarithm of their summed weights and
    their mean, both relative to the likeliest token and divided by the temperature. So the figure
    is exact at every step of its sliders, as far as top-p does not cut inside that rest.
    """
    order = np.argsort(-logits, kind="stable")
    first = order[:KEPT].tolist()
    ids = first + [i for i in sorted(set(seen)) if i not in set(first)]
    # thousandths, as stored, so that the sums fit
    rounded, best = np.round(logits * 1000) / 1000, round(float(logits[order[0]]), 3)
    rest = np.delete(rounded, ids)
    sums, means = [], []
    for temperature in TEMPERATURES[1:]:
        scaled = (rest - best) / temperature
        weights = np.exp(scaled - scaled.max())
        sums.append(round(float(np.log(weights.sum()) + scaled.max()), 4))
        means.append(round(float((weights * scaled).sum() / weights.sum()), 4))
    raw = np.round(logits[ids] * 1000).astype("<i2").tobytes()
    return {
        "tokens": [texts[i] for i in ids],
        "logits": base64.b64encode(raw).decode(),
        "seen": [ids.index(i) for i in sorted(set(seen))],
        "rest": {"count": len(rest), "highest": float(rest.max()), "sums": sums, "means": means},
    }


@dataclass(frozen=True)
class Outcome:
    """A distribution after the knobs. `open`: top-p cuts among the tokens that are not stored."""

    probabilities: np.ndarray  # of the stored tokens
    kept: int  # tokens that may be drawn; a lower bound where `open`
    mass: float  # share of the distribution before the cuts that they hold
    entropy: float  # nats
    open: bool


class SamplingKnobs(Figure):
    """The likeliest tokens after a prompt, before and after penalty, temperature, top-k and top-p.

    prompt: which of the stored ones. temperature: in twentieths, 0 is greedy. top_k: 0 is off.
    top_p: in hundredths, 100 is off. penalty: in hundredths, 100 is off.
    """

    MODULE: ClassVar[str] = "sampling_knobs"
    LIMITS: ClassVar[dict[str, tuple[int, int]]] = {
        "temperature": (0, 40),
        "top_k": (0, 200),
        "top_p": (1, 100),
        "penalty": (100, 200),
    }

    _esm = source("sampling_knobs")
    data = traitlets.Dict().tag(sync=True)
    prompt = traitlets.Int(0).tag(sync=True)
    temperature = traitlets.Int(20).tag(sync=True)
    top_k = traitlets.Int(0).tag(sync=True)
    top_p = traitlets.Int(100).tag(sync=True)
    penalty = traitlets.Int(100).tag(sync=True)

    def __init__(self, data: dict[str, Any] | None = None, **state: Any) -> None:
        data = data or stored()
        super().__init__({"prompt": (0, len(data["prompts"]) - 1)}, data=data, **state)

    @property
    def sampler(self) -> Sampler:
        """The package's sampler with the same settings."""
        return Sampler(
            TEMPERATURES[self.temperature], self.top_k, self.top_p / 100, self.penalty / 100
        )

    def outcome(self) -> Outcome:
        """The distribution after all knobs, from what is stored."""
        found = self.data["prompts"][self.prompt]
        logits = np.frombuffer(base64.b64decode(found["logits"]), "<i2") / 1000
        rest, scores = found["rest"], logits.copy()
        factor = self.penalty / 100
        seen = logits[found["seen"]]
        scores[found["seen"]] = np.where(seen > 0, seen / factor, seen * factor)
        top = scores.max()
        if self.temperature == 0:
            return Outcome((scores == top) * 1.0, 1, math.nan, 0.0, False)
        temperature = TEMPERATURES[self.temperature]
        weights = np.exp((scores - top) / temperature)
        shift = (logits[0] - top) / temperature
        others = math.exp(rest["sums"][self.temperature - 1] + shift)
        whole = total = weights.sum() + others
        order = np.argsort(-scores, kind="stable")
        if self.top_k:
            weights[order[self.top_k :]] = others = 0.0
            total = weights.sum()
        cut_inside, certain = False, 0
        if self.top_p < 100:
            before = np.concatenate(([0.0], weights[order].cumsum()[:-1])) / total
            certain = int((scores[order] > rest["highest"]).sum())  # their rank is known
            if not others or (before[:certain] >= self.top_p / 100).any():
                weights[order[before >= self.top_p / 100]] = others = 0.0
                total = weights.sum()
            else:
                cut_inside, total = True, total * self.top_p / 100
        chances = weights / total
        positive = chances[chances > 0]
        entropy = 0.0 - (positive * np.log(positive)).sum()
        if others and not cut_inside:
            mean = rest["means"][self.temperature - 1] + shift
            entropy -= others / total * (mean - math.log(total))
        kept = int((weights > 0).sum()) + (rest["count"] if others else 0)
        kept = certain if cut_inside else kept
        return Outcome(chances, kept, float(total / whole), float(entropy), cut_inside)

    def description(self) -> str:
        found, outcome = self.data["prompts"][self.prompt], self.outcome()
        best = int(outcome.probabilities.argmax())
        return (
            f"Left, the likeliest tokens after “{found['text']}” as pairs of bars, before and "
            f"after the knobs; right, probability against rank, both axes logarithmic. "
            f"{outcome.kept:,} tokens are left; the likeliest, “{found['tokens'][best]}”, has "
            f"{outcome.probabilities[best]:.1%}."
        )
