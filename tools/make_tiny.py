"""Make the tiny checkpoints that the package ships: `python tools/make_tiny.py [RUN_FOLDER]`.

Four stages on the little world (qwen2_book.world): lessons, in which a model learns to look up who
has what; pretraining on documents; fine-tuning on conversations; preferences, also between its own
stories. Writes qwen2_book/assets/base and qwen2_book/assets/tiny (the chat model), with the metrics
of the stages beside. Data, weights and batches follow from the seeds: on the same machine a second
run gives the same bytes. A stage that was interrupted goes on from its last checkpoint, and each
stage is saved when it ends. What the models can do is measured by tools/score_tiny.py.
"""

import argparse
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from qwen2_book import Qwen2, Qwen2Config, Tokenizer, save
from qwen2_book.checkpoint.source import BASE, TINY
from qwen2_book.training import dpo, loop
from qwen2_book.training.data import Batch, PackedSource, Sample, whole
from qwen2_book.training.online import best_and_worst, draw
from qwen2_book.training.sft import conversation_sample
from qwen2_book.world.documents import document, tokenizer_texts
from qwen2_book.world.lessons import Piece, exercise, lesson, talked
from qwen2_book.world.score import read_story
from qwen2_book.world.story import LANGUAGES
from qwen2_book.world.talk import STORY_REQUESTS, conversation, messages, preference

SEED, HELD_OUT_SEED = 0, 1_000_003
ROWS, LENGTH = 4, 256
SHAPE: dict[str, Any] = {
    "hidden_size": 192,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "rope_theta": 10_000.0,
    "max_position_embeddings": 1024,
    "sliding_window": 1024,
    "max_window_layers": 4,
    "tie_word_embeddings": True,
    "initializer_range": 0.02,
}
# Where the attention heads start. First layer: head h looks h + 1 tokens back. Later layers, for
# each key-value head: how far before the key the matched token stands, how far before the key
# the copied one, and for each query head how far back the token is that it asks for.
LOOK_UP = [
    [(1, 0, (0, 1)), (4, 0, (1, 0)), (2, 0, (1, 2))],
    [(0, 1, (1, 0)), (0, 4, (3, 4)), (2, 0, (3, 4))],
    [(1, 0, (0, 1)), (0, 2, (1, 4)), (0, 5, (4, 5))],
]
LESSONS = loop.Settings(
    steps=6000,
    peak_rate=1e-3,
    warm_up=20,
    final_share=0.3,
    weight_decay=0.01,
    save_every=250,
    evaluate_every=500,
)
TOPS = (0.15, 0.3, 0.6)  # after which share of the lessons the next level begins
PRETRAINING = loop.Settings(
    steps=5000,
    peak_rate=1e-3,
    warm_up=50,
    final_share=0.1,
    weight_decay=0.01,
    save_every=250,
    evaluate_every=500,
)
FINE_TUNING = loop.Settings(
    steps=6000,
    peak_rate=7e-4,
    warm_up=50,
    final_share=0.05,
    weight_decay=0.01,
    save_every=250,
    evaluate_every=300,
)
PREFERENCES = loop.Settings(
    steps=160, peak_rate=3e-4, warm_up=10, final_share=0.1, weight_decay=0.0, save_every=20
)
STAGES = {BASE: ["lessons", "pretraining"], TINY: ["fine_tuning", "preferences"]}
PAIRS, BETA, SFT_WEIGHT = 16, 0.1, 1.0
REQUESTS, STORIES, LONGEST = 12, 4, 120  # of an online batch; stories for each; tokens
PER_BATCH = 40  # texts set aside for a batch, more than it can hold


def make_tokenizer() -> Tokenizer:
    """The tokenizer of the little world, trained on its own words."""
    return Tokenizer.train(tokenizer_texts(), 2048)


def new_model(tokenizer: Tokenizer) -> Qwen2:
    """A model whose attention heads start as circuits that look things up; all else is random."""
    torch.manual_seed(SEED)
    end, stop = tokenizer.added["<|endoftext|>"], tokenizer.added["<|im_end|>"]
    rows = -(-len(tokenizer) // 64) * 64  # padded, as the released embeddings are
    model = Qwen2(Qwen2Config(vocab_size=rows, bos_token_id=end, eos_token_id=stop, **SHAPE))
    look_back(model)
    look_up(model)
    share_first_part(model, tokenizer)
    return model


@torch.no_grad()
def share_first_part(model: Qwen2, tokenizer: Tokenizer) -> None:
    """Start "Tom", " Tom" and "tom" as one word: with the same vector in the matched dimensions."""
    first_part = model.model.embed_tokens.weight[:, : model.config.head_dim]
    same: dict[bytes, int] = {}
    for token in range(len(tokenizer)):
        word = tokenizer.token_bytes(token).strip().lower()
        first_part[token] = first_part[same.setdefault(word, token)]


@torch.no_grad()
def look_back(model: Qwen2, sharpness: float = 7.0) -> None:
    """Let head h of the first layer look h + 1 tokens back and copy what it finds to a place apart.

    A query and a key that are only biases score sum_i cos((m - n - o) w_i) after RoPE has turned
    them, if the query's bias was turned back by o before: most where the key stands o tokens
    before. A small model on small data may take for ever to find such heads; every score is then
    as good as another, and nothing that is built on them can begin. Tokens start as vectors in
    the first head_dim dimensions of the residual stream, and what was found o back is written to
    dimensions o * head_dim and on, as long as there are any.
    """
    layers: Any = model.model.layers
    config = model.config
    hidden, dim, heads = config.hidden_size, config.head_dim, config.num_attention_heads
    for layer in layers:
        layer.self_attn.q_proj.weight *= 0.5
        layer.self_attn.k_proj.weight *= 0.5
        layer.self_attn.o_proj.weight *= 0.1
        layer.mlp.down_proj.weight *= 0.3
    model.model.embed_tokens.weight[:, :dim].normal_(std=dim**-0.5)
    attention = layers[0].self_attn
    turn = config.rope_theta ** (-torch.arange(0, dim, 2) / dim)
    attention.k_proj.bias.view(-1, dim)[:, : dim // 2] = sharpness
    attention.v_proj.weight.view(-1, dim, hidden)[..., :dim] += torch.eye(dim)
    for head in range(heads):
        back = (head + 1) * turn
        bias = attention.q_proj.bias.view(heads, dim)[head]
        bias[: dim // 2], bias[dim // 2 :] = sharpness * back.cos(), -sharpness * back.sin()
        if (head + 2) * dim <= hidden:
            out = attention.o_proj.weight.view(hidden, heads, dim)[(head + 1) * dim :, head]
            out[:dim] += torch.eye(dim) / hidden**0.5


@torch.no_grad()
def look_up(model: Qwen2, sharpness: float = 10.0, copied: float = 1.0) -> None:
    """Let the heads of the later layers look for a token by what stands before it, and copy it.

    LOOK_UP says which. With (1, 0, (0, ..)) a head finds where this token stood before and says
    what followed: an induction head (Olsson et al., arXiv:2209.11895). Matching uses only the
    pairs of dimensions that RoPE hardly turns, so that a match is one at any distance.
    """
    layers: Any = model.model.layers
    config = model.config
    hidden, dim = config.hidden_size, config.head_dim
    blocks = hidden // dim
    turn = config.rope_theta ** (-torch.arange(0, dim, 2) / dim)
    slow = torch.cat([turn < 0.014, turn < 0.014]).nonzero()[:, 0]
    size = dim**0.5  # of a normed block, if all blocks are alike
    scale = (sharpness * dim**1.5 / len(slow)) ** 0.5 / size
    for layer, groups in zip(layers[1:], LOOK_UP, strict=True):
        attention = layer.self_attn
        query = attention.q_proj.weight.view(-1, dim, blocks, dim)
        key, value = (
            projection.weight.view(-1, dim, blocks, dim)
            for projection in (attention.k_proj, attention.v_proj)
        )
        out = attention.o_proj.weight.view(blocks, dim, -1, dim)
        for group, (before_key, before_copied, asked) in enumerate(groups):
            match = torch.zeros(dim, dim)
            match[slow] = torch.linalg.qr(torch.randn(dim, dim))[0][: len(slow)]
            key[group, :, before_key] += scale * match
            value[group, :, before_copied] += torch.eye(dim)
            for head, back in enumerate(asked, group * len(asked)):
                query[head, :, back] += scale * match
                out[0, :, head] += copied / size * torch.eye(dim)


def pieces_sample(tokenizer: Tokenizer, pieces: list[Piece]) -> Sample:
    """Token ids of a lesson; learned is each token with a byte of a piece to be learned."""
    wanted = [learned for text, learned in pieces for _ in text.encode()]
    ids, learned, at = tokenizer.encode("".join(text for text, _ in pieces)), [], 0
    for token in ids:
        end = at + len(tokenizer.token_bytes(token))
        learned.append(any(wanted[at:end]))
        at = end
    return [*ids, tokenizer.added["<|endoftext|>"]], [*learned, False]


def lesson_of(seed: int, batch: int, number: int) -> list[Piece]:
    """The lesson for a place in a batch: most are of the newest level, the others of any before."""
    random_ = random.Random(f"level/{seed}/{batch}/{number}")
    top = sum(batch >= share * LESSONS.steps for share in TOPS)
    level = top if random_.random() < 0.6 else random_.randint(0, top)
    index = batch * PER_BATCH + number
    if level == len(TOPS):
        return exercise(seed, index)
    return lesson(seed, index, changes=level == 2, asked=level > 0)


def lesson_source(tokenizer: Tokenizer, seed: int = SEED) -> PackedSource:
    def samples(batch: int) -> Iterator[Sample]:
        return (pieces_sample(tokenizer, lesson_of(seed, batch, k)) for k in range(PER_BATCH))

    return PackedSource(samples, ROWS, LENGTH // 2, f"lessons of the little world, seed {seed}")


def pretraining_source(tokenizer: Tokenizer, seed: int = SEED) -> PackedSource:
    """Documents, of which all is learned, and one exercise after every third of them."""
    end = tokenizer.added["<|endoftext|>"]

    def samples(batch: int) -> Iterator[Sample]:
        for number in range(batch * PER_BATCH, (batch + 1) * PER_BATCH):
            yield whole([*tokenizer.encode(document(seed, number)), end])
            if number % 3 == 2:
                yield pieces_sample(tokenizer, exercise(seed, number))

    return PackedSource(samples, ROWS, LENGTH, f"documents and exercises, seed {seed}")


def chat_source(tokenizer: Tokenizer, seed: int = SEED) -> PackedSource:
    """Conversations of all kinds, and as many that ask all about a lesson or a story."""

    def samples(batch: int) -> Iterator[Sample]:
        for number in range(batch * PER_BATCH, (batch + 1) * PER_BATCH):
            found = (talked if number % 2 else conversation)(seed, number)
            yield conversation_sample(tokenizer, found)

    return PackedSource(samples, ROWS // 2, 2 * LENGTH, f"conversations, seed {seed}", cut=False)


class PreferenceSource:
    """Pairs of the little world, with the log-probabilities of a reference model."""

    def __init__(self, tokenizer: Tokenizer, reference: Qwen2, seed: int = SEED) -> None:
        self.tokenizer, self.reference, self.seed = tokenizer, reference, seed
        self.fingerprint = {"data": f"preference pairs, seed {seed}", "pairs": PAIRS}

    def batch(self, index: int) -> dpo.PairBatch:
        found = [preference(self.seed, index * PAIRS + k) for k in range(PAIRS)]
        pairs = [dpo.pair_samples(self.tokenizer, p.prompt, p.chosen, p.rejected) for p in found]
        return dpo.with_reference(self.reference, dpo.pair_batch(pairs))


class OnlineSource(PreferenceSource):
    """The same, and in every second batch pairs of the policy's own stories.

    As in Qwen2's online stage (technical report, section 4.3), but the judge is exact: world.score
    reads a story and finds its faults.
    """

    def __init__(self, tokenizer: Tokenizer, reference: Qwen2, policy: Qwen2) -> None:
        super().__init__(tokenizer, reference)
        self.policy = policy
        self.fingerprint |= {"requests": REQUESTS, "stories": STORIES}

    def batch(self, index: int) -> dpo.PairBatch:
        pairs = self.told(index) if index % 2 else []
        if not pairs:
            return super().batch(index)
        return dpo.with_reference(self.reference, dpo.pair_batch(pairs))

    def told(self, index: int) -> list[tuple[Sample, Sample]]:
        """For each request, the best and the worst of the policy's stories."""
        random_ = random.Random(f"requests/{self.seed}/{index}")
        languages = [random_.choice(LANGUAGES) for _ in range(REQUESTS)]
        asked = [(language, random_.choice(STORY_REQUESTS[language])) for language in languages]
        prompts = [
            self.tokenizer.apply_chat_template(messages(random_, language, [(text, "")])[:-1])
            for language, text in asked
        ]
        drawn = draw(self.policy, prompts, STORIES, LONGEST, seed=index)
        pairs = [
            best_and_worst(answers, [self.mark(answer, language) for answer in answers])
            for answers, language in zip(drawn, languages, strict=True)
        ]
        return [pair for pair in pairs if pair]

    def mark(self, answer: Sample, language: str) -> float:
        """The share of a story's sentences that are sound, less if always the same happens.

        Without the second part the policy finds out that whoever runs to the garden six times makes
        no mistake. 0 if a story does not end, or fewer than three things happen.
        """
        ids, learned = answer
        said = [token for token, own in zip(ids, learned, strict=True) if own]
        if said[-1] != self.tokenizer.added["<|im_end|>"]:
            return 0.0
        reading = read_story(self.tokenizer.decode(said[:-1]), language)
        happened = [event.kind for event in reading.events if event.kind != "has"]
        if len(happened) < 3:
            return 0.0
        sound = 1 - len(reading.faults) / reading.sentences
        return sound * min(1.0, 2 * len(set(happened)) / len(happened))


def held_out(source: PackedSource, first: int = 0) -> list[Batch]:
    return [source.batch(k) for k in range(first, first + 12)]


def settle(model: Qwen2, tokenizer: Tokenizer, folder: Path, chat: bool) -> None:
    """Save a model in bfloat16, with its own stop tokens and sampling settings."""
    end, stop = tokenizer.added["<|endoftext|>"], tokenizer.added["<|im_end|>"]
    sampling = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20}
    model.generation = {"bos_token_id": end, "pad_token_id": end}
    model.generation |= {"eos_token_id": [stop, end] if chat else [end]} | (
        sampling if chat else {}
    )
    model.vocab_limit = len(tokenizer)
    save(model.to(torch.bfloat16), tokenizer, folder)


def copy_of(model: Qwen2) -> Qwen2:
    twin = Qwen2(model.config)
    twin.load_state_dict(model.state_dict())
    return twin.eval()


def make(runs: Path) -> None:
    tokenizer = make_tokenizer()
    model = new_model(tokenizer)

    # Held-out lessons are all of the last level, as a last batch has them.
    tested = held_out(lesson_source(tokenizer, HELD_OUT_SEED), LESSONS.steps)
    loop.train(model, lesson_source(tokenizer), LESSONS, runs / "lessons", held_out=tested)

    tested = held_out(pretraining_source(tokenizer, HELD_OUT_SEED))
    source = pretraining_source(tokenizer)
    loop.train(model, source, PRETRAINING, runs / "pretraining", held_out=tested)
    settle(copy_of(model), tokenizer, BASE, chat=False)

    tested = held_out(chat_source(tokenizer, HELD_OUT_SEED))
    source = chat_source(tokenizer)
    loop.train(model, source, FINE_TUNING, runs / "fine_tuning", held_out=tested)
    settle(copy_of(model), tokenizer, runs / "before_preferences", chat=True)

    pairs = OnlineSource(tokenizer, copy_of(model), model)
    objective = dpo.preference_objective(BETA, sft_weight=SFT_WEIGHT)
    loop.train(model, pairs, PREFERENCES, runs / "preferences", loss=objective)
    settle(copy_of(model), tokenizer, TINY, chat=True)

    for place, stages in STAGES.items():
        for stage in stages:
            text = (runs / stage / "metrics.csv").read_text("utf-8")
            (place / f"{stage}.csv").write_text(text, "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="?", default=Path("_build/tiny"))
    make(parser.parse_args().runs)
