"""The exercises of chapter 07, sliding-window attention: answers, hints and properties."""

from qwen2_book.exercises.base import Code, Exercise, Property, Value
from qwen2_book.exercises.window_checks import (
    cache_share,
    dilated_cases,
    dilated_future,
    global_cases,
    mask_cases,
    reached,
    ring_slots,
)

EXERCISES: dict[str, Exercise] = {
    "07-1": Value(
        expected=reached,
        praise="Each layer adds W − 1 tokens, and the last token itself is one more.",
        hints={
            98_304: "That is L · W. Neighbouring windows share a token: a layer reaches W − 1 "
            "tokens further, not W.",
            98_280: "That is how far back it reaches. The last position influences itself as well.",
            4096: "That is one layer. The keys of the second layer have seen keys of their own.",
            98_305: "You added W tokens a layer. The query itself is one of the W.",
        },
        otherwise="Not yet. How many tokens back does one layer reach? Then how many do 24?",
    ),
    "07-2": Code(
        (
            Property(
                "nobody looks ahead",
                dilated_future,
                "Some query sees a key that comes after it. A window looks back only.",
            ),
            Property(
                "dilation 1 is the window",
                dilated_cases([(7, 3, 1), (5, 1, 1), (4, 9, 1)]),
                "Without gaps it must be the sliding window: W keys, the query itself included.",
            ),
            Property(
                "W keys in all",
                dilated_cases([(20, 4, 3), (16, 2, 5)]),
                "Dilation d leaves W keys, only further apart: the furthest is (W − 1) · d "
                "tokens back.",
            ),
            Property(
                "every second key",
                dilated_cases([(9, 3, 2), (12, 4, 2)]),
                "With dilation d the query sees i, i − d, i − 2d, …: counted from the query, not "
                "from the start of the text.",
            ),
        ),
        praise="The reach of a layer is now (W − 1) · d for the price of W keys.",
    ),
    "07-3": Code(
        (
            Property(
                "W keys, not one more",
                mask_cases([([5, 6], [0, 1, 2, 3, 4, 5], 3)]),
                "Query 5 with W = 3 sees keys 3, 4 and 5.",
            ),
            Property(
                "one query has a window too",
                mask_cases([([9], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 4)]),
                "A decoding step with a full cache sees more keys than its window: what is the "
                "shortcut for a single query good for?",
            ),
            Property(
                "nobody looks ahead",
                mask_cases([([4, 5, 6, 7], [4, 5, 6, 7], 2), ([6, 7], [3, 4, 5, 6, 7], 9)]),
                "Queries 4 to 7 on keys 4 to 7, or 6 and 7 on 3 to 7: compare positions, not "
                "places in the tensor.",
            ),
            Property(
                "a ring, and its empty slots",
                mask_cases([([6], [4, 5, 6, 3], 4), ([1, 2], [0, 1, 2, -1], 4)]),
                "In a ring the newest key stands anywhere, and −1 is a slot that holds nothing.",
            ),
        ),
        praise="One line decides it, and it only knows positions.",
    ),
    "07-4": Value(
        expected=cache_share,
        tolerance=0.01,
        praise="The layers that see everything keep everything, so half of the cache stays.",
        hints={
            3: "That is the share if all layers slide.",
            50: "Close, and the sliding layers are not empty: each keeps its window.",
            48: "That is what is saved. The question asks for what is left.",
            0.5156: "That is the share. The question asks for it in percent.",
        },
        otherwise="Not yet. Count the tokens that each kind of layer keeps; take their mean.",
    ),
    "07-5": Value(
        expected=ring_slots,
        praise="W − 1 keys before the piece's first query, and the piece itself.",
        hints={
            4096: "Then the piece's last tokens are written over keys that its first query needs.",
            4608: "One too many: the first query's own key is one of its W, and of the piece.",
            512: "That is the piece. The keys before it are needed too.",
            8192: "That would do, and is far more than is needed.",
        },
        otherwise="Not yet. Which is the oldest key that the piece's first query sees? Count from "
        "there to the end of the piece.",
    ),
    "07-6": Code(
        (
            Property(
                "no global token: the window",
                global_cases([(7, 3, []), (5, 1, []), (4, 9, [])]),
                "Without global tokens it must be the sliding window, causal, W keys.",
            ),
            Property(
                "seen by all later queries",
                global_cases([(9, 2, [0]), (9, 2, [0, 1])]),
                "The column of a global token must be visible to every query from it on.",
            ),
            Property(
                "sees all earlier keys",
                global_cases([(9, 2, [6]), (12, 3, [4, 11])]),
                "The row of a global token must see every key up to itself, and none after.",
            ),
        ),
        praise="Two lines of the mask cost one row and one column each, whatever the window.",
    ),
}
