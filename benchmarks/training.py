"""A training step and a DPO step beside transformers and TRL: same shapes, batches and optimiser.

    python -m benchmarks.training [--rounds 5]

Every measurement is a fresh process, ours and theirs in turn; writes benchmarks/training.json and
the table in benchmarks/training.md. Needs no checkpoint but the one inside the package.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
import trl

from benchmarks.machine import machine, resident, row, table
from qwen2_book import load
from qwen2_book.training import dpo, loop
from qwen2_book.training.data import Batch, PackedSource, whole
from qwen2_book.world.documents import document
from qwen2_book.world.talk import preference

HERE = Path(__file__).parent
PEERS = ("qwen2_book", "transformers")
ROWS, LENGTH, PAIRS, STEPS = 16, 256, 16, 6
SETTINGS = loop.Settings(steps=STEPS, peak_rate=1e-4)


def packed() -> Batch:
    """One batch of the little world, every row full."""
    _, tokenizer = load()
    assert tokenizer is not None
    end = tokenizer.added["<|endoftext|>"]
    texts = [whole([*tokenizer.encode(document(0, k)), end]) for k in range(100)]
    return PackedSource(lambda _: texts, ROWS, LENGTH, "one batch").batch(0)


def preferences() -> dpo.PairBatch:
    """One batch of pairs."""
    _, tokenizer = load()
    assert tokenizer is not None
    found = [preference(0, k) for k in range(PAIRS)]
    return dpo.pair_batch(
        dpo.pair_samples(tokenizer, p.prompt, p.chosen, p.rejected) for p in found
    )


def their_model(path: str):
    return transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


def our_pretraining() -> Callable[[], object]:
    model, batch = load(dtype="float32")[0], packed()
    optimizer = loop.make_optimizer(model, SETTINGS)

    class Same:
        fingerprint: dict = {}

        def batch(self, index: int) -> Batch:
            return batch

    return lambda: loop._step(model, Same(), SETTINGS, optimizer, loop.language_loss, 0, None)


def their_step(model, loss: Callable[[], torch.Tensor]) -> Callable[[], object]:
    optimizer = loop.make_optimizer(model, SETTINGS)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), SETTINGS.clip)
        optimizer.step()

    return step


def their_pretraining() -> Callable[[], object]:
    from qwen2_book.checkpoint.source import TINY

    model, ids = their_model(str(TINY)).train(), packed().token_ids
    return their_step(model, lambda: model(ids, labels=ids, use_cache=False).loss)


def our_dpo() -> Callable[[], object]:
    model, reference, batch = load(dtype="float32")[0], load(dtype="float32")[0], preferences()
    optimizer = loop.make_optimizer(model, SETTINGS)

    class Same:
        fingerprint: dict = {}

        def batch(self, index: int) -> dpo.PairBatch:
            return dpo.with_reference(reference, batch)

    objective = dpo.preference_objective(0.1)
    return lambda: loop._step(model, Same(), SETTINGS, optimizer, objective, 0, None)


def their_dpo() -> Callable[[], object]:
    import datasets

    from qwen2_book.checkpoint.source import TINY

    rows = batch_rows(preferences())
    config = trl.DPOConfig(
        output_dir=tempfile.mkdtemp(),
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        report_to=[],
        max_length=None,
        per_device_train_batch_size=PAIRS,
    )
    data = [
        {
            "prompt": p.prompt,
            "chosen": [{"role": "assistant", "content": p.chosen}],
            "rejected": [{"role": "assistant", "content": p.rejected}],
        }
        for p in (preference(0, k) for k in range(PAIRS))
    ]
    trainer = trl.DPOTrainer(
        model=their_model(str(TINY)),
        ref_model=their_model(str(TINY)),
        args=config,
        train_dataset=datasets.Dataset.from_list(data),
        processing_class=transformers.AutoTokenizer.from_pretrained(TINY),
    )
    return their_step(trainer.model, lambda: trainer.compute_loss(trainer.model, dict(rows)))


def batch_rows(batch: dpo.PairBatch) -> dict[str, torch.Tensor]:
    """Our pairs in the form that TRL's loss takes: the very same tokens and masks."""
    rows = batch.rows
    completion = torch.zeros_like(rows.token_ids)
    completion[:, 1:] = (rows.targets >= 0)[:, :-1]
    return {
        "input_ids": rows.token_ids,
        "attention_mask": (rows.documents == 0).long(),
        "completion_mask": completion,
    }


TASKS = {
    "pretraining": (our_pretraining, their_pretraining),
    "dpo": (our_dpo, their_dpo),
}


def measure(task: str, peer: str) -> None:
    """Print tokens per second of the best step, and the memory that training added, in bytes."""
    step = TASKS[task][PEERS.index(peer)]()
    before = resident()
    tokens = (packed() if task == "pretraining" else preferences().rows).token_ids.numel()
    seconds = []
    for _ in range(STEPS):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"rate": tokens / min(seconds), "memory": (resident() - before) / 2**20}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", nargs=2, metavar=("TASK", "PEER"))
    options = parser.parse_args()
    if options.measure:
        measure(*options.measure)
        return
    rows = []
    for task in TASKS:
        found: dict[str, dict[str, list[float]]] = {}
        for number in range(options.rounds):
            for peer in PEERS if number % 2 else PEERS[::-1]:
                command = [sys.executable, "-m", "benchmarks.training", "--measure", task, peer]
                out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                for key, value in json.loads(out.splitlines()[-1]).items():
                    found.setdefault(key, {name: [] for name in PEERS})[peer].append(value)
        other = "transformers" if task == "pretraining" else "TRL"
        rows.append(row(f"{task} step, beside {other}", "tokens/s", found["rate"]))
        rows.append(row(f"{task}, memory that the steps add", "MB", found["memory"]))
    results = {
        "machine": machine() | {"trl": trl.__version__},
        "rounds": options.rounds,
        "rows": rows,
    }
    (HERE / "training.json").write_text(json.dumps(results, indent=1) + "\n")
    about = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    text = (
        "# Training beside transformers and TRL\n\nThis page is written by "
        "`python -m benchmarks.training`; the single runs are in [training.json](training.json)."
        f"\n\nThe tiny checkpoint, float32; {about}. A step is forward, backward, clipping and "
        f"AdamW: {ROWS} rows of {LENGTH} packed tokens (ours keep texts apart, theirs let them see "
        f"each other), or {PAIRS} pairs with the reference computed in the step. Fresh processes "
        f"in turn, {options.rounds} rounds, best of {STEPS} steps in each. Tokens per second: "
        f"higher is better; memory: lower.\n\n{table(results)}\n"
    )
    (HERE / "training.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
