"""The exercises of chapter 04, rotary positions: answers, hints and properties."""

from qwen2_book.exercises.base import Code, Exercise, Property, Value
from qwen2_book.exercises.rope_checks import (
    bug_layout,
    bug_precision,
    bug_start,
    heads_stay,
    keeps_dtype,
    part_keeps_input,
    part_rest,
    part_turns,
    part_whole,
    rows_are_kept,
    same_scores,
    score_cases,
    score_shifts,
    slow_pairs,
    table,
    table_is_float32,
    table_is_kept,
)

EXERCISES: dict[str, Exercise] = {
    "04-1": Value(
        expected=slow_pairs,
        praise="These pairs never come round inside the window that Qwen2 was trained on, so each "
        "of their angles means one distance only.",
        hints={
            40: "That is how many DO complete a turn. The question asks for the others.",
            12: "That is the 0.5B, whose heads have 64 dimensions. The 7B's have 128.",
            4: "That is the answer for base 10,000. Qwen2's released base is larger.",
            15: "Did you leave out 2π? After 1/frequency tokens a pair has turned by one radian "
            "only.",
            48: "Dimensions or pairs? A pair is counted once.",
            33: "Count those that do NOT come round inside 32,768 tokens, not inside 4,096.",
        },
        otherwise="Not yet. Compute the 64 wavelengths of the 7B and count those above 32,768.",
    ),
    "04-2": Code(
        (
            Property(
                "position 0 turns nothing",
                score_cases([(8, 0, 0, 1e4), (64, 0, 0, 1e6)]),
                "At m = n = 0 the score is the plain dot product of query and key. For complex "
                "numbers, whose product is that: q times k, or q times the conjugate of k?",
            ),
            Property(
                "one pair by hand",
                score_cases([(2, 3, 1, 1e4), (2, 1, 3, 1e4)]),
                "With two dimensions there is one pair and its frequency is 1. Both vectors turn "
                "the same way round, each by its own position.",
            ),
            Property(
                "many pairs",
                score_cases([(8, 5, 2, 1e4), (64, 40, 7, 1e6)]),
                "Pair i joins dimensions i and i + d/2, and turns by θ^(−2i/d) a token.",
            ),
            Property(
                "only the distance counts",
                score_shifts,
                "Moving both positions by 1,000 changed the score: do both use their own position?",
            ),
        ),
        praise="Four lines of complex numbers, and they equal the package's score.",
    ),
    "04-3": Code(
        (
            Property(
                "first positions",
                table([[0, 1, 2, 3]]),
                "The angle of position p and pair i is p · θ^(−2i/d); the table has d/2 columns.",
            ),
            Property("float32", table_is_float32, "The table must be float32, on every path."),
            Property(
                "any order, any shape",
                table([[5, 3, 3, 0]]),
                "Look rows up by position, `table[positions]`; do not cut the first rows off.",
            ),
            Property(
                "beyond what it has",
                table([[0, 1], [70_000], [2, 3]]),
                "A position beyond the table must make it grow, and the old rows must stay right. "
                "(Angles multiplied in float32 are near enough.)",
            ),
            Property(
                "computed once",
                table_is_kept,
                "The second look-up computed cosines again: keep the table in `self`.",
            ),
        ),
        praise="Rows are computed once and looked up afterwards, whatever the order of positions.",
    ),
    "04-4": Code(
        (
            Property(
                "the input stays as it was",
                part_keeps_input,
                "Your function changed `x` itself: write into a copy, or join new parts.",
            ),
            Property(
                "the rest is untouched",
                part_rest,
                "cos has one column a pair, so 2 · cos.shape[-1] dimensions turn; all others must "
                "come back bit by bit as they were, in their places.",
            ),
            Property(
                "the first part turns",
                part_turns,
                "Pairs are halves of the PART that turns: with 8 of 32 dimensions, pair 0 is "
                "(0, 4), not (0, 16).",
            ),
            Property(
                "all of it is a part too",
                part_whole,
                "With cos for all dimensions it must equal `rotate`.",
            ),
        ),
        praise="The dimensions that do not turn compare content with no regard to distance.",
    ),
    "04-5": Code(
        (
            Property(
                "a permutation of rows",
                rows_are_kept,
                "Only the order of the rows may change: same shape, no row lost or doubled.",
            ),
            Property(
                "heads stay apart",
                heads_stay,
                "The rows were moved across heads. Reshape to (heads, …) first.",
            ),
            Property(
                "the same scores",
                same_scores,
                "The scores differ from those of the interleaved model. Which two rows of a head "
                "were a pair before, and which two will `rotate` take for a pair?",
            ),
        ),
        praise="That is what converters do to checkpoints that were trained with the other layout.",
    ),
    "04-6": Code(
        (
            Property(
                "a later piece stands later",
                bug_start,
                "Turning tokens 3, 4 alone with start=3 differs from turning all five from 0: what "
                "a model does at every step after the first, with a cache.",
            ),
            Property(
                "half-split pairs",
                bug_layout,
                "Dimension 3 of 16 must mix with dimension 11 only: these weights are half-split.",
            ),
            Property(
                "angles in float32",
                bug_precision,
                "For a bfloat16 input, neighbours at position 30,000 score differently from "
                "neighbours at 0. In which dtype are the angles computed?",
            ),
            Property(
                "the output keeps the dtype",
                keeps_dtype,
                "A bfloat16 input came back in another dtype: the cache and the weights expect the "
                "input's. Cast after the cosine.",
            ),
        ),
        praise="All three are gone. Each of them has been in a released library.",
    ),
}
