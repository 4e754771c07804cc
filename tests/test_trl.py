"""The post-training losses against TRL, on token-identical batches: values and gradients."""

import json
import math

import pytest
import torch
from layouts import DENSE, replace
from safetensors.torch import save_file

from qwen2_book import Qwen2, Tokenizer, load
from qwen2_book.checkpoint.layout import shapes
from qwen2_book.training import dpo
from qwen2_book.training.data import Batch, pack, unpacked
from qwen2_book.training.loss import language_loss
from qwen2_book.training.reward import RewardModel, reward_loss
from qwen2_book.training.sft import conversation_sample
from qwen2_book.world.talk import conversation, preference

trl = pytest.importorskip("trl")
transformers = pytest.importorskip("transformers")
datasets = pytest.importorskip("datasets")

PAIRS = [preference(0, k) for k in range(4)]
QUIET = {
    "bf16": False,
    "use_cpu": True,
    "gradient_checkpointing": False,
    "report_to": [],
    "per_device_train_batch_size": 4,
    "disable_tqdm": True,
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load()[1]


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    """A random model and its tokenizer as files; `other` has different weights."""
    place = tmp_path_factory.mktemp("trl")
    for name, seed in (("policy", 0), ("other", 1)):
        (place / name).mkdir()
        model = random(tokenizer, seed)
        (place / name / "config.json").write_text(json.dumps(model.config.to_dict()))
        state = {n: model.state_dict()[n].clone() for n in shapes(model.config)}
        save_file(state, place / name / "model.safetensors", {"format": "pt"})
        tokenizer.save(place / name)
    return place


def random(tokenizer, seed) -> Qwen2:
    torch.manual_seed(seed)
    end = tokenizer.added["<|endoftext|>"]
    return Qwen2(
        replace(
            DENSE,
            vocab_size=-(-len(tokenizer) // 64) * 64,
            num_hidden_layers=2,
            tie_word_embeddings=True,
            initializer_range=0.1,
            max_position_embeddings=1024,
            bos_token_id=end,
            eos_token_id=tokenizer.added["<|im_end|>"],
            pad_token_id=end,
        )
    )


def theirs(folder, name):
    return transformers.AutoModelForCausalLM.from_pretrained(folder / name, dtype=torch.float32)


def rows_of(batch) -> Batch:
    """TRL's padded batch as ours: the same ids, the same completion mask."""
    ids, learned = batch["input_ids"].tolist(), batch["completion_mask"].tolist()
    lengths = batch["attention_mask"].sum(1).tolist()
    return unpacked(
        (row[:n], [bool(m) for m in mask[:n]])
        for row, mask, n in zip(ids, learned, lengths, strict=True)
    )


def same_gradients(model, other, skip=()):
    found = dict(other.named_parameters())
    for name, parameter in model.named_parameters():
        if name not in skip:
            grad = found[name].grad
            scale = float(grad.abs().max())
            torch.testing.assert_close(parameter.grad, grad, rtol=1e-4, atol=1e-5 * scale, msg=name)


def as_data(pair):
    say = lambda text: [{"role": "assistant", "content": text}]  # noqa: E731
    return {"prompt": pair.prompt, "chosen": say(pair.chosen), "rejected": say(pair.rejected)}


KINDS = {
    "sigmoid": (["sigmoid"], {"kind": "sigmoid"}),
    "ipo": (["ipo"], {"kind": "ipo"}),
    "sigmoid_norm": (["sigmoid_norm"], {"kind": "sigmoid_norm"}),
    "sigmoid and sft": (["sigmoid", "sft"], {"kind": "sigmoid", "sft_weight": 1.0}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_dpo(kind, folder, tokenizer, tmp_path):
    names, options = KINDS[kind]
    config = trl.DPOConfig(
        output_dir=str(tmp_path), loss_type=names, beta=0.1, max_length=None, **QUIET
    )
    trainer = trl.DPOTrainer(
        model=theirs(folder, "policy"),
        ref_model=theirs(folder, "other"),
        args=config,
        train_dataset=datasets.Dataset.from_list([as_data(pair) for pair in PAIRS]),
        processing_class=transformers.AutoTokenizer.from_pretrained(folder / "policy"),
    )
    theirs_batch = trainer.data_collator([trainer.train_dataset[k] for k in range(4)])
    expected = trainer.compute_loss(trainer.model, dict(theirs_batch))
    expected.backward()

    model, reference = random(tokenizer, 0), random(tokenizer, 1)
    batch = dpo.with_reference(reference, dpo.PairBatch(rows_of(theirs_batch)))
    found = dpo.preference_objective(0.1, **options)(model, batch) / batch.weight
    found.backward()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    same_gradients(model, trainer.model)

    # Our own tokens are theirs, but for the line end after <|im_end|>, which they learn.
    ours = dpo.pair_batch(
        dpo.pair_samples(tokenizer, p.prompt, p.chosen, p.rejected) for p in PAIRS
    ).rows
    for row in range(8):
        theirs_row = theirs_batch["input_ids"][row][theirs_batch["attention_mask"][row].bool()]
        assert ours.token_ids[row][ours.documents[row] == 0].tolist() == theirs_row[:-1].tolist()
        assert ours.targets[row].ge(0).sum() == theirs_batch["completion_mask"][row].sum() - 1


def test_sft(folder, tokenizer, tmp_path):
    samples = [conversation_sample(tokenizer, conversation(1, k)) for k in range(4)]
    config = trl.SFTConfig(
        output_dir=str(tmp_path), max_length=None, loss_type="nll", eos_token="<|im_end|>", **QUIET
    )
    rows = [{"input_ids": ids, "assistant_masks": [int(m) for m in mask]} for ids, mask in samples]
    trainer = trl.SFTTrainer(
        model=theirs(folder, "policy"),
        args=config,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=transformers.AutoTokenizer.from_pretrained(folder / "policy"),
    )
    theirs_batch = trainer.data_collator([trainer.train_dataset[k] for k in range(4)])
    learned = [i for ids, mask in samples for i, m in zip(ids, mask, strict=True) if m]
    labels = theirs_batch["labels"]
    assert labels[labels != -100].tolist() == learned
    expected = trainer.compute_loss(trainer.model, dict(theirs_batch))
    expected.backward()
    model = random(tokenizer, 0)
    for batch in (unpacked(samples), pack(samples, 4, 512, cut=False)):
        model.zero_grad()
        found = language_loss(model, batch) / batch.weight
        found.backward()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        same_gradients(model, trainer.model)


def test_reward(folder, tokenizer, tmp_path):
    other = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder / "policy", num_labels=1, dtype=torch.float32
    )
    config = trl.RewardConfig(output_dir=str(tmp_path), max_length=None, **QUIET)
    trainer = trl.RewardTrainer(
        model=other,
        args=config,
        train_dataset=datasets.Dataset.from_list([as_data(pair) for pair in PAIRS]),
        processing_class=transformers.AutoTokenizer.from_pretrained(folder / "policy"),
    )
    theirs_batch = trainer.data_collator([trainer.train_dataset[k] for k in range(4)])
    expected = trainer.compute_loss(trainer.model, dict(theirs_batch))
    expected.backward()

    model = RewardModel(random(tokenizer, 0))
    with torch.no_grad():
        model.score.weight.copy_(other.score.weight)
    lengths = theirs_batch["attention_mask"].sum(1).tolist()
    rows = zip(theirs_batch["input_ids"].tolist(), lengths, strict=True)
    batch = dpo.PairBatch(unpacked((ids[:n], [True] * n) for ids, n in rows))
    found = reward_loss(model, batch) / batch.weight
    found.backward()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model.score.weight.grad, other.score.weight.grad)
    grads = dict(other.model.named_parameters())
    for name, parameter in model.base.model.named_parameters():
        torch.testing.assert_close(parameter.grad, grads[name].grad, rtol=1e-4, atol=1e-6)


def test_label_smoothing_by_the_published_formula():
    """cDPO, eq. 3 of Mitchell's note; TRL takes no notice of label_smoothing with `sigmoid`."""
    h, beta, eps = 1.7, 0.3, 0.2
    ones = torch.ones(1)
    margins = dpo.Margins(torch.tensor([2.0]), torch.tensor([0.3]), ones, ones)
    found = float(dpo.preference_loss(margins, beta, "sigmoid", eps))
    sigma = 1 / (1 + math.exp(-beta * h))
    assert found == pytest.approx(
        -(1 - eps) * math.log(sigma) - eps * math.log(1 - sigma), rel=1e-6
    )


def test_what_chapter_18_stores_of_trl(tmp_path):
    """Its script makes the stored losses again; smoothing is asked for and not done."""
    import trl_losses

    stored = json.loads(trl_losses.STORED.read_text(encoding="utf-8"))
    found, batch = trl_losses.losses(tmp_path)
    assert found.keys() == stored["losses"].keys()
    for name, value in found.items():
        assert value == pytest.approx(stored["losses"][name], rel=1e-5)
    assert found["sigmoid, smoothing asked for"] == found["sigmoid"]
    first = batch["input_ids"][0][batch["attention_mask"][0].bool()]
    assert stored["rows"][0][0] == first.tolist()
