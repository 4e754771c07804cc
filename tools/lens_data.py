"""Store what the logit-lens figure shows: `python tools/lens_data.py`.

Needs QWEN2_BOOK_CHECKPOINT. Two prompts of our own run once in float32; kept are the five likeliest
tokens of every state at every position, with their probabilities in thousandths. Written to
`qwen2_book/widgets/logit_lens.json`, one line a state.
"""

import json

from real_model import real_model

from qwen2_book import trace
from qwen2_book.widgets.logit_lens import SHOWN, STORED, prompt_data

PROMPTS = {"English": "The capital of France is", "中文": "一月、二月、三月、"}


def main() -> None:
    model, tokenizer = real_model()
    prompts = []
    for name, text in PROMPTS.items():
        seen = trace(model, tokenizer.encode(text), layers=[], lens=SHOWN)
        prompts.append(prompt_data(name, seen, tokenizer))
    lines = []
    for prompt in prompts:
        top = ",\n".join(json.dumps(row, ensure_ascii=False) for row in prompt.pop("top"))
        rest = json.dumps(prompt, ensure_ascii=False)
        lines.append(f'{rest[:-1]}, "top": [\n{top}\n]}}')
    text = f'{{"source": {json.dumps(model.name_or_path)}, "prompts": [\n' + ",\n".join(lines)
    STORED.write_text(text + "\n]}\n", encoding="utf-8")
    print(f"{STORED}: {STORED.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
