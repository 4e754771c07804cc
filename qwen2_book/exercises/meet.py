"""The exercises of chapter 01, meet the model: answers, hints and properties."""

from qwen2_book.exercises.base import Code, Exercise, Property, Value
from qwen2_book.exercises.meet_checks import (
    active_share,
    counts_as,
    every_state_alone,
    last_is_the_models,
    length_does_not_matter,
    rank_cases,
    settled_cases,
    small_total,
)

EXERCISES: dict[str, Exercise] = {
    "01-1": Value(
        expected=small_total,
        tolerance=0.02,
        praise="Two fifths of it are the table of tokens: a small model is mostly its vocabulary.",
        hints={
            56_900_096: "You counted a head of its own. It is tied: one matrix serves twice.",
            43_667_968: "Did you give every query head its own key and value head? There are two.",
            34_224_640: "The feed-forward layer has three matrices: gate, up and down.",
            24_132_096: "The table of tokens is missing.",
        },
        otherwise="Not yet. Count the table once, then one block: attention's four matrices, the "
        "feed-forward layer's three; then eight blocks.",
    ),
    "01-2": Value(
        expected=active_share,
        tolerance=0.01,
        praise="Eight of 64 experts are an eighth, but attention, the shared expert and the two "
        "tables are used by every token.",
        hints={
            12: "About an eighth is the share of the routed experts. What else does a token use?",
            14: "That is the number in the name, in billions. The question asks for a percentage.",
            23: "Close: that leaves the two tables of tokens out above the line or below.",
            100: "All are held in memory; a token runs through fewer.",
        },
        otherwise="Not yet. The chapter's table has both numbers; divide.",
    ),
    "01-3": Code(
        (
            Property(
                "the likeliest is first",
                rank_cases([([0.5, 3.0, -1.0], 1, 1), ([9.0, 3.0, -1.0], 0, 1)]),
                "The token with the largest score has rank 1, not 0.",
            ),
            Property(
                "the others in order",
                rank_cases([([0.5, 3.0, -1.0], 0, 2), ([0.5, 3.0, -1.0], 2, 3)]),
                "Count the tokens that have a larger score, and begin at 1.",
            ),
            Property(
                "equal scores share a place",
                rank_cases([([2.0, 2.0, 1.0], 0, 1), ([2.0, 2.0, 1.0], 1, 1)]),
                "Two tokens with the same score are equally likely: neither comes first.",
            ),
        ),
        praise="Now hunt: a prompt whose right answer has rank 2.",
    ),
    "01-4": Code(
        (
            Property(
                "it appears and stays",
                settled_cases([(list("abcxx"), 3), (list("abcdx"), 4)]),
                "With tokens a b c x x the answer x stands first with 3 blocks done.",
            ),
            Property(
                "it came, left and came back",
                settled_cases([(list("axbxx"), 3), (list("xaax"), 3)]),
                "A first visit does not count if it leaves again: look from the end.",
            ),
            Property(
                "it was there from the start",
                settled_cases([(list("xxxx"), 0), (["x"], 0)]),
                "If every state says it, no block was needed: 0.",
            ),
        ),
        praise="Looking from the end is the trick: what stays is what counts.",
    ),
    "01-5": Code(
        (
            Property(
                "the last state is the model's answer",
                last_is_the_models,
                "With all blocks done the lens must give the model's own probabilities.",
            ),
            Property(
                "every state by its own length",
                every_state_alone,
                "Whose length are the early states divided by?",
            ),
            Property(
                "a longer stream reads the same",
                length_does_not_matter,
                "RMSNorm divides by the vector's own length: a factor changes nothing.",
            ),
        ),
        praise="Each state wears the norm by itself; now early blocks look as decided as they are.",
    ),
    "01-6": Code(
        (
            Property(
                "a tied model",
                counts_as("Qwen2-0.5B", "Qwen2-1.5B"),
                "In the two small sizes the head is the embedding matrix: it counts once. Queries, "
                "keys and values have a bias; do not forget the norm at the end.",
            ),
            Property(
                "an untied model",
                counts_as("Qwen2-7B", "Qwen2-72B"),
                "From the 7B on the head is a matrix of its own.",
            ),
        ),
        praise="To the last parameter, for four released models.",
    ),
}
