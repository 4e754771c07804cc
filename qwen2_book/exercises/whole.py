"""The exercises of chapter 09, the whole model: answers, hints and properties."""

from qwen2_book.exercises.base import Code, Exercise, Property, Value
from qwen2_book.exercises.whole_checks import (
    block_case,
    cached_tokens,
    crossing,
    layout_case,
    missing,
    not_a_number,
    nothing_wrong,
    own_length,
    renormalised,
    the_first,
    zeros,
)

EXERCISES: dict[str, Exercise] = {
    "09-1": Value(
        expected=crossing,
        tolerance=0.001,
        praise="From there on most operations of a token are spent on looking back.",
        hints={
            11_485: "That is the 0.5B.",
            35_890: "Scores and weighted sums both cost: four operations a number, not fewer.",
            15_233: "You left out the head. It is a matrix that every token is multiplied with.",
            107_671: "You counted heads of keys. Every query head computes scores of its own.",
            502_464: "That is one layer's attention against all matrices.",
        },
        otherwise="Not yet. Equal terms of equation (2): divide the products of a token by the "
        "operations for one key. The chapter's table has this column for other sizes.",
    ),
    "09-2": Value(
        expected=cached_tokens,
        tolerance=0.0005,
        praise="Shared out among a hundred conversations, that is not much.",
        hints={
            152_918: "You took GB for GiB: 24 GiB are 24 · 1,024³ bytes.",
            449_389: "Then the weights have no room.",
            367_577: "Values need room beside the keys.",
            91_894: "That is a cache in float32.",
        },
        otherwise="Not yet. Bytes of the card, less those of the weights, divided by the cache of "
        "one token.",
    ),
    "09-3": Code(
        (
            Property(
                "nothing is wrong",
                nothing_wrong,
                "Equal tensors, and tensors within the tolerance, give None.",
            ),
            Property(
                "the first",
                the_first,
                "Go through `expected` in its order; the found ones may come in any.",
            ),
            Property(
                "each by its own length",
                own_length,
                "A difference of 1 is little in a vector of length 500, and a difference of 0.1 "
                "is much in one of length 5, even where both stand in one tensor.",
            ),
            Property(
                "NaN",
                not_a_number,
                "NaN is not larger than the tolerance. It is not smaller either.",
            ),
            Property(
                "missing, or of another shape",
                missing,
                "A missing tensor has no distance; one of shape (1, 2) broadcasts and seems equal.",
            ),
            Property(
                "zeros",
                zeros,
                "A vector of zeros counts as long as the median of all lengths, and where that is "
                "zero too, nothing may be divided by zero.",
            ),
        ),
        praise="With two hooks a module, that is the ladder.",
    ),
    "09-4": Code(
        (
            Property(
                "one short token",
                block_case(size=1e-3, twins=True),
                "One token, no biases, all heads their own, gate and up the same matrix. What is "
                "left that matters more for a short vector than for a long one?",
            ),
            Property(
                "one token",
                block_case(),
                "A token of ordinary length, and gate and up are two matrices.",
            ),
            Property(
                "one token, with biases",
                block_case(biases=True),
                "Queries, keys and values have biases in `w`; other layers have none.",
            ),
            Property(
                "one token, two heads of keys and values",
                block_case(biases=True, kv_heads=2),
                "Which of the two heads of values does query head 1 take?",
            ),
            Property(
                "three tokens at one position",
                block_case(biases=True, kv_heads=2, tokens=3),
                "Cosines are 1 and sines 0, so nothing turns. Who sees whom?",
            ),
            Property(
                "seven tokens",
                block_case(biases=True, kv_heads=2, tokens=7, turned=True),
                "Now everything counts, positions as well. The rotation was right as printed.",
            ),
        ),
        praise="Five bugs, each in the smallest test that can see it. On whole texts they would "
        "have been one.",
    ),
    "09-5": Value(
        expected=renormalised,
        praise="All tests of the other layouts would have passed for ever.",
        hints={
            6: "A dense layout has no router.",
            1: "Dense layers between the experts do not save the layers that have some.",
            0: "The weights of the chosen experts sum to less than one; renormalised, to one.",
        },
        otherwise="Not yet. Which layouts have experts at all?",
    ),
    "09-6": Code(
        (
            Property(
                "dense, own head",
                layout_case("dense, own head"),
                "Embed, blocks, norm, head. Is the stream added to twice in a block, and the mask "
                "causal? The command on a file names the tensor.",
            ),
            Property(
                "dense, tied head",
                layout_case("dense, tied head"),
                "Where `tie_word_embeddings` is true, the head's weight is the embedding's.",
            ),
            Property(
                "experts", layout_case("experts"), "A block with experts has them in place of mlp."
            ),
            Property(
                "experts, dense between",
                layout_case("experts, dense between"),
                "Ask `config.is_sparse(layer)` for every layer.",
            ),
            Property(
                "sliding from layer 2",
                layout_case("sliding from layer 2"),
                "Each layer has a window of its own: `config.layer_windows`.",
            ),
            Property(
                "YaRN",
                layout_case("YaRN"),
                "The package's RotaryEmbedding knows YaRN; give it the configuration.",
            ),
        ),
        praise="That is Qwen2, and you wrote it.",
    ),
}
