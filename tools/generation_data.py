"""Store what samplers and drafts do to a real model's text: `python tools/generation_data.py`.

Needs QWEN2_BOOK_CHECKPOINT. Greedy continuations under repetition penalties; draws of one story at
several settings; speculative decoding with drafts made of the model itself. Takes a quarter of an
hour on one core; written to `notebooks/data/11_generation.json`. A part may be named to do it
alone: `penalty`, `settings` or `drafts`.
"""

import json
import sys
from pathlib import Path

import torch
from real_model import real_model

from qwen2_book import Qwen2, Sampler, Tokenizer, generate
from qwen2_book.speculative import ModelDraft, PromptLookup, speculate, with_layers

STORED = Path(__file__).parent.parent / "notebooks" / "data" / "11_generation.json"
COUNTING = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10,"
TABLE = "rows = [\n    [0, 0, 0, 1],\n    [0, 0, 1, 0],\n    [0, 1, 0, 0],\n"
STORY = "Once upon a time there was a"
PENALTIES = (1.0, 1.05, 1.1, 1.2, 1.3, 1.5, 1.9)
SETTINGS = {
    "greedy": Sampler(temperature=0),
    "greedy, penalty 1.1": Sampler(temperature=0, repetition_penalty=1.1),
    "as released": Sampler(0.7, 20, 0.8, 1.1, seed=0),
    "temperature 1": Sampler(1.0, seed=0),
    "temperature 1.5": Sampler(1.5, seed=0),
}
EDIT = (
    "Add a docstring to this function and print the whole function again.\n\n"
    "def mean(values):\n    total = 0\n    for value in values:\n        total = total + value\n"
    "    return total / len(values)\n"
)
TASKS = {
    "code, edited": EDIT,
    "code, new": "Write a Python function that returns the n-th Fibonacci number.",
    "story": "Write one paragraph about a fisherman and the sea.",
    "中文": "用一段话介绍一下长城。",
}
DROPPED = {"20 of 24 layers": (8, 10, 12, 14), "16 of 24 layers": (4, 6, 8, 10, 12, 14, 16, 18)}
STEPS, ROWS, NEW, COUNT = 90, 6, 48, 4


def penalties(model: Qwen2, tokenizer: Tokenizer) -> dict[str, dict[str, str]]:
    """Greedy continuations of a list, a table and a story, by penalty."""
    texts = {"counting": COUNTING, "table": TABLE, "story": STORY}
    prompts = [tokenizer.encode(text) for text in texts.values()]
    found = {}
    for penalty in PENALTIES:
        sampler = Sampler(temperature=0, repetition_penalty=penalty)
        rows = generate(model, prompts, STEPS, sampler, stop=[]).tolist()
        found[str(penalty)] = dict(zip(texts, map(tokenizer.decode, rows), strict=True))
    return found


@torch.no_grad()
def settings(model: Qwen2, tokenizer: Tokenizer) -> dict[str, dict]:
    """Texts drawn after one beginning, and the model's own loss of each, nats a token."""
    prompt = tokenizer.encode(STORY)
    found = {}
    for name, sampler in SETTINGS.items():
        rows = 1 if sampler.temperature == 0 else ROWS
        new = generate(model, [prompt] * rows, STEPS, sampler, stop=[])
        whole = torch.cat((torch.tensor([prompt] * rows), new), 1)
        logits = model(whole)[:, len(prompt) - 1 : -1].log_softmax(-1)
        loss = -logits.gather(2, new[..., None])[..., 0].mean(1)
        texts = [tokenizer.decode(row) for row in new.tolist()]
        found[name] = {"texts": texts, "loss": [round(float(x), 3) for x in loss]}
    return found


def drafts(model: Qwen2, tokenizer: Tokenizer) -> dict[str, dict]:
    """Tokens made, passes, proposed and accepted, for each task and draft; greedy and sampled."""
    found: dict[str, dict] = {}
    for task, question in TASKS.items():
        ids = tokenizer.apply_chat_template([{"role": "user", "content": question}])
        greedy = generate(model, torch.tensor([ids]), NEW)[0].tolist()
        for sampler, how in ((None, "greedy"), (Sampler(0.7, 20, 0.8, seed=0), "sampled")):
            kinds: dict = {"look-up": PromptLookup()}
            for name, gone in DROPPED.items():
                kept = [n for n in range(model.config.num_hidden_layers) if n not in gone]
                kinds[name] = ModelDraft(with_layers(model, kept), sampler)
            for name, draft in kinds.items():
                run = speculate(model, ids, draft, NEW, COUNT, sampler)
                assert how != "greedy" or run.token_ids == greedy
                row = [len(run.token_ids), run.passes, run.proposed, run.accepted]
                found.setdefault(task, {}).setdefault(how, {})[name] = row
    return found


def main() -> None:
    model, tokenizer = real_model()
    stored = json.loads(STORED.read_text(encoding="utf-8")) if STORED.exists() else {}
    stored["checkpoint"] = Path(model.name_or_path).name
    parts = {"penalty": penalties, "settings": settings, "drafts": drafts}
    for part in sys.argv[1:] or parts:
        stored[part] = parts[part](model, tokenizer)
        text = json.dumps(stored, ensure_ascii=False, indent=1)
        STORED.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
