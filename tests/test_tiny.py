"""The tiny checkpoints: small, whole, and as good as their cards say."""

import csv
import hashlib
import json
import random
from collections import Counter

import pytest
import torch
from make_tiny import (
    FINE_TUNING,
    LESSONS,
    PAIRS,
    PREFERENCES,
    PRETRAINING,
    STAGES,
    OnlineSource,
    PreferenceSource,
    chat_source,
    lesson_source,
    make_tokenizer,
    new_model,
    pieces_sample,
    pretraining_source,
)
from score_tiny import ROOT, SEEDS, base_prompt, card, chat_prompt, marks, samples, table

from qwen2_book import Qwen2, Sampler, generate, load, stream
from qwen2_book.checkpoint.source import BASE, TINY
from qwen2_book.world.documents import document
from qwen2_book.world.score import read_story
from qwen2_book.world.story import LANGUAGES, story

CARDS = {folder: json.loads((folder / "card.json").read_text()) for folder in STAGES}
both = pytest.mark.parametrize("folder", STAGES, ids=lambda folder: folder.name)


@both
def test_it_is_small(folder):
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 12_000_000


@both
def test_it_is_the_one_that_the_card_describes(folder):
    recorded = CARDS[folder]
    for name, value in card(folder, STAGES[folder]).items():
        assert recorded[name] == value
    assert (
        hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        == (recorded["model_sha256"])
    )
    model, tokenizer = load(folder)
    assert model.dtype == torch.bfloat16 and model.vocab_limit == len(tokenizer)


def test_the_settings_are_those_of_the_stored_metrics():
    settings = {
        "lessons": LESSONS,
        "pretraining": PRETRAINING,
        "fine_tuning": FINE_TUNING,
        "preferences": PREFERENCES,
    }
    for folder, stages in STAGES.items():
        for stage in stages:
            with (folder / f"{stage}.csv").open() as file:
                rows = list(csv.DictReader(file))
            assert len(rows) == settings[stage].steps
            for row in (rows[0], rows[len(rows) // 2], rows[-1]):
                assert float(row["rate"]) == settings[stage].rate(int(row["step"]) - 1)


def test_its_tokenizer_and_its_batches_follow_from_the_seeds():
    tokenizer = make_tokenizer()
    text = "Tom 把红色的球给了小红。"
    assert tokenizer.encode(text) == load()[1].encode(text)
    for source, stage, folder in (
        (lesson_source(tokenizer), "lessons", BASE),
        (pretraining_source(tokenizer), "pretraining", BASE),
        (chat_source(tokenizer), "fine_tuning", TINY),
    ):
        with (folder / f"{stage}.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [source.batch(k).weight for k in range(3)] == [int(r["learned"]) for r in rows[:3]]
        assert torch.equal(source.batch(1).token_ids, source.batch(1).token_ids)


@pytest.mark.parametrize("language, greeting", [("en", "Hello!"), ("zh", "你好！")])
def test_it_greets_in_the_language_of_the_greeting(language, greeting):
    model, tokenizer = load(dtype="float32")
    message = [{"role": "user", "content": greeting}]
    answer = "".join(stream(model, tokenizer, message, sampler=Sampler(temperature=0)))
    assert ("story" if language == "en" else "故事") in answer


@pytest.mark.parametrize(
    "folder, prompt", [(BASE, base_prompt), (TINY, chat_prompt)], ids=["base", "chat"]
)
def test_it_answers_as_well_as_the_card_says(folder, prompt):
    """One of the card's five seeds, marked again; the card's mean is the mean of five such."""
    model, tokenizer = load(folder, dtype="float32")
    found = marks(model, tokenizer, SEEDS[0], prompt=prompt)
    for language in LANGUAGES:
        keys = [key for key in found["asked"] if key[0] == language]
        share = sum(found["model"][k] for k in keys) / sum(found["asked"][k] for k in keys)
        guess = sum(found["baseline"][k] for k in keys) / sum(found["asked"][k] for k in keys)
        recorded = CARDS[folder]["answers"][language]
        assert abs(share - recorded["model"]["mean"]) < 0.1
        assert abs(guess - recorded["baseline"]["mean"]) < 0.1


def test_what_it_says_is_what_the_card_shows():
    model, tokenizer = load(dtype="float32")
    for prompt, said in samples(model, tokenizer).items():
        assert said == CARDS[TINY]["samples"][prompt]
    for prompt, language in (("Tell me a story.", "en"), ("讲个故事吧。", "zh")):
        reading = read_story(CARDS[TINY]["samples"][prompt], language)
        assert reading.sentences > 3
        assert not any(fault.startswith("not understood") for fault in reading.faults)


@both
@pytest.mark.parametrize("language", LANGUAGES)
def test_it_answers_better_than_a_guess(folder, language):
    found = CARDS[folder]["answers"][language]
    model, guess = found["model"], found["baseline"]
    assert model["mean"] - model["plus_minus"] > guess["mean"] + guess["plus_minus"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_fine_tuning_kept_the_answers(language):
    old, new = (CARDS[folder]["answers"][language]["model"] for folder in (BASE, TINY))
    assert new["mean"] + new["plus_minus"] > old["mean"] - old["plus_minus"]


def test_preferences_were_learned_without_forgetting_the_answers():
    now, before = (CARDS[TINY][key] for key in ("preferred", "preferred_before_preferences"))
    right = [sum(rule["right"] for rule in found.values()) for found in (before, now)]
    assert right[1] >= 0.95 * right[0]
    for language in LANGUAGES:
        old, new = (
            CARDS[TINY][key][language]["without_a_fault"]
            for key in ("stories_before_preferences", "stories")
        )
        assert new["mean"] - new["plus_minus"] > old["mean"] + old["plus_minus"]
        old = CARDS[TINY]["answers_before_preferences"][language]["model"]
        new = CARDS[TINY]["answers"][language]["model"]
        assert new["mean"] + new["plus_minus"] > old["mean"] - old["plus_minus"]


@pytest.mark.parametrize(
    "folder, stage", [(BASE, "lessons"), (BASE, "pretraining"), (TINY, "fine_tuning")]
)
def test_held_out_loss_fell_with_training(folder, stage):
    with (folder / f"{stage}.csv").open() as file:
        losses = [float(r["held_out"]) for r in csv.DictReader(file) if r["held_out"] != "nan"]
    assert len(losses) > 2 and losses[-1] == min(losses) < 0.8 * losses[0]


def test_the_heads_of_a_new_model_look_back_and_look_up():
    """Before any step: head h of the first layer looks h + 1 tokens back, and in a list of tokens
    that comes again the first head of the next layer finds what followed the token before."""
    model, length = new_model(load()[1]).eval(), 24
    plain = Qwen2(model.config).eval()
    listed = torch.randperm(1500, generator=torch.Generator().manual_seed(1))[:length] + 300
    ids, positions = torch.cat([listed, listed])[None], torch.arange(2 * length)

    def most_seen(tried, layer):
        x, (cos, sin) = tried.model.embed_tokens(ids), tried.model.rotary(positions[None])
        for before in tried.model.layers[:layer]:
            x = before(x, cos, sin)
        block = tried.model.layers[layer]
        query, key = block.self_attn.query_key(block.input_layernorm(x), cos, sin)
        scores = query @ key.repeat_interleave(2, 1).transpose(-1, -2)
        return scores.masked_fill(positions > positions[:, None], -torch.inf).argmax(-1)[0]

    with torch.no_grad():
        for head, seen in enumerate(most_seen(model, 0)):
            back = positions[head + 1 :] - head - 1
            assert (seen[head + 1 :] == back).float().mean() > 0.9
            assert (most_seen(plain, 0)[head, head + 1 :] == back).float().mean() < 0.5
        followed = positions[1:length]
        assert (most_seen(model, 1)[0, length:-1] == followed).float().mean() > 0.9
        assert (most_seen(plain, 1)[0, length:-1] == followed).float().mean() < 0.5


def test_only_the_asked_words_of_a_lesson_are_learned():
    tokenizer = load()[1]
    pieces = [("Anna had a red ball. ", False), ("小红", True), ("有球。", False), (" Tom", True)]
    ids, learned = pieces_sample(tokenizer, pieces)
    assert (
        tokenizer.decode([k for k, wanted in zip(ids, learned, strict=True) if wanted])
        == "小红 Tom"
    )
    assert tokenizer.decode(ids) == "".join(text for text, _ in pieces) + "<|endoftext|>"


@pytest.fixture(scope="module")
def teller():
    model, tokenizer = load(dtype="float32")
    return OnlineSource(tokenizer, model, model)


@pytest.mark.parametrize(
    "told, mark",
    [
        ("Tom had a red ball. Tom ran to the zoo. He ate two pears. Anna took a nap.", 0),
        ("Tom had a red ball. Tom ran to the zoo. Tom gave Anna the red ball. Anna took a nap.", 1),
        (
            "Tom ran to the zoo. Tom ran to the shop. Anna ran to the zoo. Anna ran to the shop.",
            0.5,
        ),
        ("Tom had a red ball. Tom ran to the zoo.", 0),
    ],
)
def test_a_story_is_marked_by_what_is_sound_and_by_its_variety(teller, told, mark):
    text = f"One day, Tom and Anna met in the park. {told}"
    ids, end = teller.tokenizer.encode(text), teller.tokenizer.added["<|im_end|>"]
    whole = [*ids, end], [True] * (len(ids) + 1)
    assert teller.mark(whole, "en") == mark
    assert teller.mark((ids, [True] * len(ids)), "en") == 0  # it does not end


def test_online_pairs_are_the_best_and_the_worst_story_of_a_request(teller):
    for (best, worst), _ in zip(teller.told(1), range(3), strict=False):
        language = "en" if teller.tokenizer.decode(best[0][-3:-1]).isascii() else "zh"
        assert teller.mark(best, language) > teller.mark(worst, language)
    again = teller.batch(1)
    assert again.reference is not None and torch.equal(
        again.rows.token_ids, teller.batch(1).rows.token_ids
    )


def test_pairs_know_their_reference():
    model, tokenizer = load(dtype="float32")
    batch = PreferenceSource(tokenizer, model).batch(0)
    assert batch.weight == PAIRS
    assert batch.reference is not None and len(batch.reference) == 2 * PAIRS


def test_the_base_model_goes_on_with_a_story():
    model, tokenizer = load(BASE, dtype="float32")
    ids = tokenizer.encode("One day, Tom and Anna met in the park.")
    new = generate(model, [ids], max_new_tokens=40, sampler=Sampler(temperature=0))[0]
    assert "Tom" in tokenizer.decode(new.tolist())


def test_the_data_card_has_the_scores():
    text = (ROOT / "little_world.md").read_text(encoding="utf-8")
    assert table(CARDS) in text


def test_the_data_card_counts_what_is_there():
    """The lengths and shares that the card states, from stories and documents made anew."""
    text = (ROOT / "little_world.md").read_text(encoding="utf-8")
    tokenizer, random_ = load()[1], random.Random(1)
    lengths, most, shares = [], [], []
    for language in LANGUAGES:
        tales = [story(random_, language) for _ in range(600)]
        tokens = [len(tokenizer.encode(tale.text)) for tale in tales]
        asked = [len(tale.questions) for tale in tales]
        kinds = Counter(q.kind for tale in tales for q in tale.questions)
        lengths.append(f"{sum(tokens) / 600:.0f}")
        most.append(f"{min(tokens)}–{max(tokens)}")
        order = ("where", "colour", "who", "count", "spot", "next")
        shares.append([f"{100 * kinds[kind] / sum(asked):.0f}" for kind in order])
    assert f"| tokens in a story, mean | {' | '.join(lengths)} |" in text
    assert f"| tokens in a story, least and most | {' | '.join(most)} |" in text
    for name, row in zip(("English", "中文"), shares, strict=True):
        assert f"| {name} | {' | '.join(row)} |" in text
    shown = document(0, 3).split("\n")
    card_text = text.replace("\n", " ")
    assert all(line in card_text for line in (*shown[:3], *shown[7:9]))
