"""The exercises of chapter 13, long context: answers, hints and properties."""

from qwen2_book.exercises.base import Code, Exercise, Property, Value
from qwen2_book.exercises.long_context_checks import (
    distances,
    factor_once,
    kept_pairs,
    merges,
    merges_empty,
    merges_large,
    one_changes_nothing,
    one_part_stays,
    original_length,
    own_factor,
    slowest_is_slowed,
)

EXERCISES: dict[str, Exercise] = {
    "13-1": Value(
        expected=kept_pairs,
        praise="Pairs 0 to 23 turn more than 32 times inside 32,768 tokens and stay as trained.",
        hints={
            12: "That is the 0.5B, whose heads have 64 dimensions. The 7B's have 128.",
            23: "Pair 23 is the last one kept. Pairs are counted from 0.",
            40: "From pair 40 on they are slowed by the whole factor. Which are not slowed at all?",
            16: "Those are the blended ones, between the kept and the slowed.",
        },
        otherwise="Not yet. Compare `inverse_frequencies` with and without `rope_scaling`.",
    ),
    "13-2": Code(
        (
            Property(
                "a factor of 1 changes nothing",
                one_changes_nothing,
                "With factor 1 the base must come back as it was.",
            ),
            Property(
                "the slowest pair is slowed by the factor",
                slowest_is_slowed,
                "The slowest pair has the exponent (dim − 2) / dim, not 1. What must the base be "
                "multiplied by, so that this power of it grows by the factor?",
            ),
        ),
        praise="The quickest pair has exponent 0, so it keeps its speed whatever the base.",
    ),
    "13-3": Code(
        (
            Property(
                "its own piece",
                distances(0),
                "Query and key in one piece: the distance is the true one, i − j. A piece has "
                "chunk − local tokens.",
            ),
            Property(
                "the piece before",
                distances(1),
                "For keys of the piece before, the query stands one piece further than its place, "
                "but never beyond `chunk`.",
            ),
            Property(
                "earlier pieces",
                distances(2),
                "For all earlier keys the query stands at `chunk`; the key stays at its place "
                "within its own piece.",
            ),
        ),
        praise="Four lines, and they are the whole matrix of the figure.",
    ),
    "13-4": Code(
        (
            Property(
                "one part stays as it is",
                one_part_stays,
                "With a single part its weight is 1: subtract the log-sum-exp of all sums.",
            ),
            Property(
                "equal to one softmax",
                merges,
                "Each part counts with exp(its log-sum) over the sum of all of them, row by row.",
            ),
            Property(
                "large scores",
                merges_large,
                "exp(5000) is infinite. Subtract the log-sum-exp of all sums before exp.",
            ),
            Property(
                "an empty part",
                merges_empty,
                "A part that saw no key has the log-sum −inf and must count nothing, without NaN.",
            ),
        ),
        praise="That is how attention over any split of the keys is put together again.",
    ),
    "13-5": Code(
        (
            Property(
                "the trained length",
                original_length,
                "The frequencies are those of another length. Which of the two lengths in the "
                "settings was the model TRAINED on?",
            ),
            Property(
                "the factor once",
                factor_once,
                "The factor on cos and sin is 0.1 ln(4) + 1 = 1.1386. The scores get its square by "
                "themselves, since queries AND keys are multiplied.",
            ),
            Property(
                "the checkpoint's own factor",
                own_factor,
                "Where the settings name an `attention_factor`, it takes the place of the formula.",
            ),
        ),
        praise="All three are gone. None of them raised an error where it was found.",
    ),
}
