"""Store what the head browser shows: `python tools/browser_data.py`, then the same with `losses`.

Needs QWEN2_BOOK_CHECKPOINT. Three prompts of 40 tokens, each of our own, in which names come twice:
the survey of all heads over each. With `losses`: the rise of the mean loss on the first tokens of
`notebooks/data/07_texts/english.txt` with each head alone silenced, in float32. A head of layer l
changes nothing before it, so only the layers from l on run again: 53 minutes on a busy core.
Written to `qwen2_book/widgets/head_browser.json`.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from real_model import real_model
from torch import Tensor

from qwen2_book import Qwen2, Tokenizer
from qwen2_book.heads import survey
from qwen2_book.widgets import head_browser

TEXT = Path(__file__).parent.parent / "notebooks" / "data" / "07_texts" / "english.txt"
LENGTH, LOSS_LENGTH = 40, 256  # tokens of a prompt, and of the text for the losses
PROMPTS = {
    "English": "One wet evening Mara Quill mended the silver lantern. At night the silver lantern "
    "burned for Mara Quill, and the harbour cat slept beside it. At dawn the harbour cat woke Mara "
    "Quill.",
    "中文": "阿宁在老码头修好了一只铜灯笼。夜里，铜灯笼照着码头，阿宁和小灰猫坐在灯下。"
    "清晨，小灰猫叫醒了阿宁。",
    "Python": "def mean(values):\n    total = 0\n    for value in values:\n        total += value\n"
    "    return total / len(values)\n\ndef spread(values):\n    total = 0\n"
    "    for value in values:",
}


@torch.no_grad()
def losses(model: Qwen2, ids: list[int]) -> tuple[float, Float[Tensor, "layers heads"]]:
    """The mean loss on a text, and with each head alone silenced; all heads of a layer at once."""
    layers, heads = model.model.layers, model.config.num_attention_heads
    inputs: list[tuple] = []  # what each layer gets
    hooks = [
        layer.register_forward_pre_hook(lambda _, args: inputs.append(args)) for layer in layers
    ]

    def mean_loss(logits: Tensor) -> float:
        return float(torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:])))

    base = mean_loss(model(torch.tensor([ids]))[0])
    for hook in hooks:
        hook.remove()

    def silence(_, args):  # row h of the batch loses head h
        mixed = args[0].unflatten(-1, (heads, -1)).clone()
        mixed[torch.arange(heads), :, torch.arange(heads)] = 0
        return (mixed.flatten(-2),)

    found = []
    for number in range(len(layers)):
        x = inputs[number][0].expand(heads, -1, -1)
        mixer = model.get_submodule(f"model.layers.{number}.self_attn.o_proj")
        hook = mixer.register_forward_pre_hook(silence)
        for later, (_, *rest) in zip(layers[number:], inputs[number:], strict=True):
            x = later(x, *rest)
        hook.remove()
        found.append([mean_loss(model.lm_head(row)) for row in model.model.norm(x)])
        print(number, [round(loss - base, 4) for loss in found[-1]], flush=True)
    return base, torch.tensor(found)


def prompts(model: Qwen2, tokenizer: Tokenizer) -> dict[str, Any]:
    """The surveys of the three prompts, packed."""
    data: dict[str, Any] = {}
    for name, text in PROMPTS.items():
        ids = tokenizer.encode(text)[:LENGTH]
        if len(ids) < LENGTH:
            sys.exit(f"{name}: {len(ids)} tokens, expected at least {LENGTH}")
        made = head_browser.data_of(survey(model, ids), tokenizer.pieces(ids), model.name_or_path)
        data = made | {"prompts": data.get("prompts", []) + [made["prompts"][0] | {"name": name}]}
    return data


def main() -> None:
    model, tokenizer = real_model()
    file = head_browser.STORED
    old = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if "losses" in sys.argv:
        ids = tokenizer.encode(TEXT.read_text(encoding="utf-8"))[:LOSS_LENGTH]
        base, found = losses(model, ids)
        rises = ((found - base) * 10_000).round().int().flatten().tolist()
        measured = {"text": TEXT.name, "tokens": len(ids), "base": round(base, 4), "rises": rises}
        data = old | {"losses": measured}
    else:
        data = prompts(model, tokenizer) | {"losses": old.get("losses")}
    data = {key: value for key, value in data.items() if value}
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n"
    file.write_text(text, encoding="utf-8")
    print(f"{file}: {len(text.encode()) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
