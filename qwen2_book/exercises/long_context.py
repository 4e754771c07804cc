"""The exercises of chapter 13, long context: answers, hints and properties."""

from qwen2_book.exercises.base import Code, Exercise, Property, Value
from qwen2_book.exercises.long_context_checks import (
    chosen_is_slowed,
    factor_once,
    is_ready_for_more,
    kept_pairs,
    lookalikes,
    merges,
    merges_empty,
    merges_large,
    never_negative,
    one_changes_nothing,
    original_length,
    own_factor,
    room_for_tokens,
    slowest_is_slowed,
    weights_stay,
)

EXERCISES: dict[str, Exercise] = {
    "13-1": Value(
        expected=kept_pairs,
        praise="Pairs 0 to 20 turn more than 32 times inside 4,096 tokens and stay as trained.",
        hints={
            20: "Pair 20 is the last one kept. Pairs are counted from 0.",
            24: "That is the released model. Set `rope_theta` to 10,000 and the length to 4,096.",
            14: "Here the base is still 1,000,000. Set `rope_theta` to 10,000 as well.",
            36: "Here the length is still 32,768. What was the model of the question trained to?",
            18: "Those are slowed by the whole factor. Which are not slowed at all?",
            25: "Those are the blended ones, between the kept and the slowed.",
            11: "That is a head of 64 dimensions, as in the 0.5B. The 7B's heads have 128.",
        },
        otherwise="Not yet. Compare `inverse_frequencies` with and without `rope_scaling`, for a "
        "configuration whose `rope_theta` is 10,000.",
    ),
    "13-2": Code(
        (
            Property(
                "a factor of 1 changes nothing",
                one_changes_nothing,
                "With factor 1 the base must come back as it was.",
            ),
            Property(
                "the slowest pair, as in equation (1)",
                slowest_is_slowed,
                "The slowest pair is number dim / 2 − 1; for it you must get equation (1).",
            ),
            Property(
                "the chosen pair is slowed by the factor",
                chosen_is_slowed,
                "Pair i turns by base ** (−2 i / dim). Write down what it shall turn by, and solve "
                "for the new base.",
            ),
        ),
        praise="The quickest pair has exponent 0, so it keeps its speed whatever the base.",
    ),
    "13-3": Code(
        (
            Property(
                "a key of the query's own piece",
                lookalikes(0),
                "A key of the query's own piece seems as far as it is, i − j. Keys of earlier "
                "pieces may seem as far. A piece has chunk − local tokens.",
            ),
            Property(
                "a key of the piece before",
                lookalikes(1),
                "For keys of the piece before, the query stands one piece further than its place, "
                "but never beyond `chunk`.",
            ),
            Property(
                "a key of an earlier piece",
                lookalikes(2),
                "For all earlier keys the query stands at `chunk`; the key stays at its place "
                "within its own piece.",
            ),
        ),
        praise="Far away there is one in every piece, and distance does not tell them apart.",
    ),
    "13-4": Code(
        (
            Property(
                "equal to one softmax",
                merges,
                "The new log-sum is log(exp(first's) + exp(second's)). Each output counts with "
                "exp(its own log-sum − the new one), row by row.",
            ),
            Property(
                "the pair can be merged again",
                is_ready_for_more,
                "Return (output, log-sum), the log-sum of all keys so far: three parts merged one "
                "after the other, in any order, must give the same.",
            ),
            Property(
                "large scores",
                merges_large,
                "exp(5000) is infinite. Subtract the new log-sum before `exp`, and find it with "
                "`torch.logaddexp`.",
            ),
            Property(
                "an empty part",
                merges_empty,
                "A part that saw no key has the log-sum −inf and must count nothing, without NaN.",
            ),
        ),
        praise="Kernels that never hold a whole row of scores work in this way.",
    ),
    "13-5": Code(
        (
            Property(
                "the bytes of a token",
                room_for_tokens,
                "A token keeps a key AND a value in every layer, for each of the key-value heads "
                "(not the query heads), two bytes a number.",
            ),
            Property(
                "the weights stay",
                weights_stay,
                "The weights need their room as well: `costs.weight_bytes(config)`.",
            ),
            Property(
                "never less than none",
                never_negative,
                "Where the weights alone are too large, the answer is 0.",
            ),
        ),
        praise="An engine needs room for activations too, so a little less will fit.",
    ),
    "13-6": Code(
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
