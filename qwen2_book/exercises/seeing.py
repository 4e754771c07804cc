"""The exercises of chapter 14, seeing attention: answers, hints and properties."""

from qwen2_book.exercises.base import Code, Exercise, Property, Value
from qwen2_book.exercises.seeing_checks import (
    all_weights_gigabytes,
    at_least,
    every_head_is_served,
    first_once,
    hidden_gets_nothing,
    input_stays,
    is_its_mean,
    later_layers_first,
    long_window,
    none_is_longer,
    not_ahead,
    one_layer,
    others_stay,
    right_partner,
    sums_to_one,
    window_alone,
)

EXERCISES: dict[str, Exercise] = {
    "14-1": Value(
        expected=all_weights_gigabytes,
        praise="The model itself takes 15 of them in bfloat16. Nobody keeps all the weights.",
        hints={
            1683.6: "That is half of it: two bytes a weight, or the lower triangle only.",
            481.0: "Count the query heads: each has weights of its own, its keys are shared.",
            120.3: "That is one layer. There are 28.",
            4.295: "That is one head. How many are there in all?",
            3136.0: "Those are GiB, of 2**30 bytes. The question asks for 10**9 bytes.",
            841.8: "That many thousand million weights it is; each has four bytes.",
        },
        tolerance=0.005,
    ),
    "14-2": Code(
        (
            Property(
                "a window alone",
                window_alone,
                "Query i keeps the keys i − window + 1 to i, itself included. Add up what it gives "
                "to those, then take the mean over the queries.",
            ),
            Property(
                "with the first token",
                first_once,
                "With `first`, key 0 counts as inside for every query, but never twice: the first "
                "queries have it inside their window already.",
            ),
            Property(
                "a window longer than the text",
                long_window,
                "Such a window keeps everything: the answer is 1, with the first token or without.",
            ),
        ),
        praise="One number a head: this is what the browser's squares show.",
    ),
    "14-3": Code(
        (
            Property(
                "no query looks at the next key",
                not_ahead,
                "Look at the share just right of the diagonal: a query must not see the key after "
                "its own. Which diagonal does the mask begin at?",
            ),
            Property(
                "what is hidden gets nothing",
                hidden_gets_nothing,
                "A score of 0 is not a share of 0: exp(0) is 1. What score gives a share of 0?",
            ),
            Property(
                "each head with its own key head",
                right_partner,
                "With two key heads, query heads 0 to 6 of 14 read the first one. In what order "
                "does `repeat` put the copies?",
            ),
        ),
        praise="All three gave rows that sum to one, and maps that looked like maps.",
    ),
    "14-4": Code(
        (
            Property(
                "its mean at every position",
                is_its_mean,
                "Head h owns the columns h · dim to (h + 1) · dim − 1. Replace them by their mean "
                "over the positions (the rows).",
            ),
            Property("the other heads", others_stay, "Only this head's columns may change."),
            Property(
                "the input stays",
                input_stays,
                "You wrote into the tensor that you were given. Work on a clone.",
            ),
        ),
        praise="What a head says on average stays; what it says about this text is gone.",
    ),
    "14-5": Code(
        (
            Property(
                "every head is served",
                every_head_is_served,
                "A layer has one cache for all its heads: the head that keeps least decides.",
            ),
            Property(
                "no window is longer than needed",
                none_is_longer,
                "Take the smallest window in which every head of the layer keeps the share.",
            ),
            Property(
                "a share that is just reached",
                at_least,
                "A head that keeps exactly the share is served.",
            ),
        ),
        praise="One far-looking head makes its whole layer keep everything.",
    ),
    "14-6": Code(
        (
            Property(
                "one layer",
                one_layer,
                "Take the mean over the heads, add the identity for the residual stream, and halve "
                "the sum.",
            ),
            Property(
                "rows that sum to one",
                sums_to_one,
                "Each step's rows sum to one, so those of their product do: is the identity "
                "weighted, and does every layer count once?",
            ),
            Property(
                "the order of the layers",
                later_layers_first,
                "The last layer stands on the left of the product: it reads states in which the "
                "layers below have already mixed the tokens.",
            ),
        ),
        praise="A first guess at where information came from; it takes every head at its word.",
    ),
}
