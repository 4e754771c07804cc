"""The exercises of chapter 11, generation: answers, hints and properties."""

from qwen2_book.exercises import generation_checks as checks
from qwen2_book.exercises.base import Code, Exercise, Property, Value

EXERCISES: dict[str, Exercise] = {
    "11-1": Value(
        expected=checks.tokens_read,
        praise="With a cache it would be 1,499: the prompt, and every new token but the last.",
        hints={
            1499: "That is the count with a cache. Without one, each pass reads all that stands "
            "there.",
            1500: "That is the length of the whole text. Without a cache each pass reads all that "
            "stands there.",
            750_000: "Not every pass is over the whole text: the first one is over the prompt.",
            500_000: "Those are the prompts. Later passes also read the new tokens before them.",
            625_250: "The first new token comes from the prompt alone, so no pass reads the last "
            "new token.",
        },
        otherwise="Not yet. The first pass reads 1,000 tokens, the second 1,001. Which is the "
        "last?",
    ),
    "11-2": Value(
        expected=checks.tokens_left,
        praise="Top-p looks at what top-k has left, divided by its sum.",
        hints={
            3: "Top-p sees the three tokens after they are scaled to a sum of one: what do the "
            "first ones have together then?",
            4: "Top-k comes first, and leaves fewer than that.",
            5: "Both knobs cut.",
            1: "One token has less than 0.8, so the next is needed.",
        },
        otherwise="Not yet. A token stays if all likelier ones together have less than 0.8.",
    ),
    "11-3": Code(
        (
            Property(
                "a positive logit falls",
                checks.penalty_cases([([2.0, 1.0, 0.5], [0], 1.25)]),
                "Divide what is positive, and leave tokens alone that do not stand in the history.",
            ),
            Property(
                "a negative logit falls",
                checks.penalty_cases([([1.0, -2.0, -0.5], [1], 1.5)]),
                "What does dividing a negative number do to it?",
            ),
            Property(
                "a token that stands there twice",
                checks.penalty_cases([([2.0, -1.0, 0.5], [0, 0, 1, 1, 1], 1.5)]),
                "The penalty asks whether a token has appeared, not how often.",
            ),
            Property(
                "padding",
                checks.penalty_cases([([2.0, 1.0, 3.0], [-1, -1, 0], 1.5)]),
                "In Python, index -1 is the last token of the vocabulary. Here it is no token.",
            ),
            Property(
                "the logits that came in",
                checks.penalty_leaves_its_input,
                "The caller's tensor has changed. Work on a copy.",
            ),
        ),
        praise="That is what the package's Sampler does to a row.",
    ),
    "11-4": Code(
        (
            Property(
                "what is kept",
                checks.min_p_cases([([0.5, 0.3, 0.15, 0.05], 0.2)]),
                "Compare every probability with the likeliest one, times the share.",
            ),
            Property(
                "exactly at the limit",
                checks.min_p_cases([([0.5, 0.25, 0.25], 0.5)]),
                "At least the share: a token exactly there stays.",
            ),
            Property(
                "unsorted and extreme",
                checks.min_p_cases(
                    [([0.1, 0.6, 0.3], 1.0), ([0.1, 0.6, 0.3], 0.0), ([0.05, 0.9, 0.05], 0.1)]
                ),
                "Tokens stand in the order of the vocabulary and keep it; share 1 leaves the "
                "likeliest, share 0 leaves all.",
            ),
        ),
        praise="One knob that opens where the model hesitates and closes where it is sure.",
    ),
    "11-5": Code(
        (
            Property(
                "whole characters",
                checks.sends([b"ab", b"c"], [b"\xe4\xbd\xa0", b"\xe5\xa5\xbd"]),
                "Chunks that end with a character are sent as they are.",
            ),
            Property(
                "a character in two chunks",
                checks.sends([b"\xe9\xbe", b"\x98!"], [b"a\xf0\x9f", b"\x90", b"\xb3"]),
                "Half a character can't be decoded: keep its bytes until the rest is there.",
            ),
            Property(
                "no empty pieces",
                checks.sends_no_empty_pieces,
                "Send nothing where there is nothing yet.",
            ),
            Property(
                "an end inside a character",
                checks.sends_the_rest,
                "When the chunks end, what was held back must come out, as a replacement sign.",
            ),
            Property(
                "at once",
                checks.sends_at_once,
                "Do not collect: every whole character goes out before the next chunk is asked "
                "for.",
            ),
        ),
        praise="No reader will see a broken character.",
    ),
    "11-6": Code(
        (
            Property(
                "no padding",
                checks.position_cases([[1, 1, 1]]),
                "Positions count from 0, so after three tokens comes position 3.",
            ),
            Property(
                "left padding",
                checks.position_cases([[0, 0, 1], [1, 1, 1], [0, 1, 1]]),
                "Padding has no position: each row counts its real tokens.",
            ),
        ),
        praise="Each row has its own clock.",
    ),
    "11-7": Code(
        (
            Property(
                "the guess is ruled out",
                checks.recovers_without_the_guess,
                "It was refused, so it must not come back: its probability is 0.",
            ),
            Property(
                "a sum of one",
                checks.recovers_a_distribution,
                "Divide by what is left.",
            ),
            Property(
                "the model's distribution stays",
                checks.recover_leaves_its_input,
                "The target has changed: clone it first. The next token of the pass needs it.",
            ),
            Property(
                "both ways together",
                checks.recovery_is_exact,
                "Kept with the probability of the guess, else drawn from here: the sum of both "
                "must be the target.",
            ),
        ),
        praise="It is kept with the model's own probability of the guess; the rest fills up.",
    ),
}
