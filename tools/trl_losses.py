"""Store TRL's losses for chapter 18: `python tools/trl_losses.py`.

Two random networks, policy and reference, and the chapter's 24 pairs go through TRL's own trainer
and collator; its tokens, its masks and its losses are written to notebooks/data/18_trl.json.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
import trl
from preference_training import SUMS, TOKENIZER, answers, asked, loud, question

from qwen2_book import save

STORED = Path(__file__).parent.parent / "notebooks" / "data" / "18_trl.json"
BETA, SMOOTHING = 0.1, 0.1
LOSSES = {  # name -> loss types, label_smoothing
    "sigmoid": (["sigmoid"], 0.0),
    "ipo": (["ipo"], 0.0),
    "sigmoid_norm": (["sigmoid_norm"], 0.0),
    "sigmoid, smoothing asked for": (["sigmoid"], SMOOTHING),
    "sigmoid + sft": (["sigmoid", "sft"], 0.0),
}


def rows() -> list[dict[str, Any]]:
    """The pairs as TRL wants them."""
    said = [answers(*each) for each in SUMS]
    return [
        {
            "prompt": asked(question(*each)),
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
        }
        for each, (chosen, rejected) in zip(SUMS, said, strict=True)
    ]


def losses(folder: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Every loss of LOSSES, and the batch as TRL's collator made it."""
    for name, seed in (("policy", 0), ("reference", 1)):
        save(loud(seed), TOKENIZER, folder / name)
    found: dict[str, float] = {}
    batch: dict[str, Any] = {}
    kind = transformers.AutoModelForCausalLM
    for name, (kinds, smoothing) in LOSSES.items():
        trainer = trl.DPOTrainer(
            model=kind.from_pretrained(folder / "policy", dtype=torch.float32),
            ref_model=kind.from_pretrained(folder / "reference", dtype=torch.float32),
            args=trl.DPOConfig(
                output_dir=str(folder / "out"),
                loss_type=kinds,
                beta=BETA,
                label_smoothing=smoothing,
                max_length=None,
                bf16=False,
                use_cpu=True,
                gradient_checkpointing=False,
                report_to=[],
                per_device_train_batch_size=len(SUMS),
                disable_tqdm=True,
            ),
            train_dataset=datasets.Dataset.from_list(rows()),
            processing_class=transformers.AutoTokenizer.from_pretrained(folder / "policy"),
        )
        batch = trainer.data_collator([trainer.train_dataset[k] for k in range(len(SUMS))])
        with torch.no_grad():
            found[name] = float(trainer.compute_loss(trainer.model, dict(batch)))
    return found, batch


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        found, batch = losses(Path(folder))
    tokens, lengths = batch["input_ids"].tolist(), batch["attention_mask"].sum(1).tolist()
    stored = {
        "command": "python tools/trl_losses.py",
        "trl": trl.__version__,
        "beta": BETA,
        "label_smoothing": SMOOTHING,
        "losses": found,
        "rows": [
            [ids[:n], mask[:n]]
            for ids, mask, n in zip(tokens, batch["completion_mask"].tolist(), lengths, strict=True)
        ],
    }
    STORED.write_text(json.dumps(stored, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
