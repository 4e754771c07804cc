"""The merge stepper in Python: its table against the real merges, its steps against the package."""

import json
import unicodedata

import pytest
from texts import SAMPLES, generated

from qwen2_book import Tokenizer, bpe
from qwen2_book.widgets import MergeStepper, merge_table


@pytest.fixture(scope="module")
def real(real_checkpoint) -> Tokenizer:
    return Tokenizer.from_file(real_checkpoint, backend="python")


def test_numbers_survive_the_packing():
    numbers = [0, 1, 127, 128, 300, 2**20, 5]
    assert merge_table.read_varints(merge_table.varints(numbers)) == numbers


def test_a_small_table_survives_the_packing():
    merges = bpe.train(SAMPLES * 2, 300)
    kept, text = merge_table.pack(merges)
    assert kept == len(merges)
    assert merge_table.unpack(text) == {pair: rank for rank, pair in enumerate(merges)}
    assert not set("\"&'<>\\") & set(text)


def test_the_stored_table_is_small_and_says_what_it_holds():
    data = merge_table.stored()
    assert merge_table.STORED.stat().st_size <= 600_000
    assert len(json.dumps(data)) <= 600_000
    assert data["kept"] == len(merge_table.stored_ranks())
    assert data["always"] == merge_table.ALWAYS


def test_the_stored_merges_are_the_real_ones(real):
    ranks = merge_table.stored_ranks()
    assert len(real.merges) == merge_table.stored()["merges"]
    for rank, pair in enumerate(real.merges):
        out = rank >= merge_table.ALWAYS and merge_table.is_left_out("".join(pair))
        assert ranks.get(pair) == (None if out else rank)


def test_the_ids_are_the_real_ones_or_the_figure_says_that_it_is_unsure(real):
    known = doubtful = 0
    for text in [*SAMPLES, *generated(31, 400)]:
        figure = MergeStepper(text[:120])
        right = figure.ids() == real.encode(figure.text)
        assert right or figure.unsure(), ascii(text)
        known += not figure.unsure()
        doubtful += bool(figure.unsure())
    assert known > 300
    assert doubtful > 10


@pytest.mark.parametrize("text", ["Hello 你好, tokenizer", "e\u0301é  12\n", "👩‍🔬", ""])
def test_the_steps_end_where_the_package_ends(text):
    figure = MergeStepper(text)
    ranks = merge_table.stored_ranks()
    pieces = [list(word) for word in bpe.words(text)]
    for step in figure.merges():
        tokens = pieces[step.piece]
        at = next(
            i for i in range(len(tokens)) if tuple(tokens[i : i + 2]) == (step.left, step.right)
        )
        assert ranks[step.left, step.right] == step.rank
        tokens[at : at + 2] = [step.left + step.right]
    assert pieces == [bpe.merge(word, ranks) for word in bpe.words(text)]
    assert b"".join(
        merge_table.bytes_of(t) for p in pieces for t in p
    ).decode() == unicodedata.normalize("NFC", text)


def test_a_long_text_is_cut_and_said():
    figure = MergeStepper("ab" * 100)
    assert len(figure.text) == 120
    assert "200 characters" in figure.note
