"""The exercises of chapter 03, the residual stream: answers, hints and properties."""

from qwen2_book.exercises.base import Code, Exercise, Property, Value
from qwen2_book.exercises.stream_checks import (
    cast_late,
    fused_apart,
    fused_outputs,
    fused_shape,
    length_at_eps,
    no_upcast,
    norm,
    running_sum,
    saved_by_tying,
    step_dtype,
    step_eps,
    step_keeps,
    step_wide,
    verdicts,
    wide_sum_only,
    writes_clean,
    writes_each,
    writes_shape,
)

EXERCISES: dict[str, Exercise] = {
    "03-1": Value(
        expected=saved_by_tying,
        tolerance=0.01,
        praise="One matrix of 152,064 rows less. The 0.5B saves 22% in the same way.",
        hints={
            14.3: "Those are both matrices. A tied head still needs one of them.",
            8.35: "You divided by the parameters outside the two matrices. Divide by all of them.",
            27.6: "That is the embedding's share in the 0.5B, which is tied already.",
        },
        otherwise="Not yet. `costs.parameters` gives the head and the total; in percent, please.",
    ),
    "03-2": Value(
        expected=length_at_eps,
        tolerance=0.0005,
        praise="Mean square and ε weigh the same here, so the output is short by the root of two.",
        hints={
            1: "That is what the norm is for, and what it does to longer vectors. Here ε is as "
            "large as the mean square.",
            0.999: "That is ε outside the root: 0.001 divided by 0.001 + 0.000001.",
            0.5: "Mean square over mean square plus ε; now take the root.",
        },
        otherwise="Not yet. The mean square is 0.001 squared. Add ε, take the root, "
        "divide; three digits will do.",
    ),
    "03-3": Code(
        (
            Property(
                "the layer keeps its shape",
                fused_shape,
                "PyTorch stores a linear layer's weight as (out, in); fusing leaves it so.",
            ),
            Property(
                "the same outputs",
                fused_outputs,
                "The norm's weight multiplies the layer's inputs: which axis of (out, in) is that?",
            ),
            Property(
                "the parts are left alone",
                fused_apart,
                "Return a new matrix; an in-place product changes the checkpoint's own weights.",
            ),
        ),
        praise="One product less per norm. The final norm can't go that way where the head is "
        "tied: the embedding needs the matrix as it is.",
    ),
    "03-4": Code(
        (
            Property(
                "a good norm passes",
                verdicts(True, norm, cast_late),
                "Your test refuses a norm that does up-cast. Leave room for one or two roundings "
                "of the output; whether the weight comes before or after the cast is not its job.",
            ),
            Property(
                "a sum in bfloat16 is caught",
                verdicts(False, running_sum),
                "A sum that is rounded after every number got through. Use many numbers of "
                "about the same size: from some point on, adding one more changes nothing.",
            ),
            Property(
                "squares in half precision are caught",
                verdicts(False, no_upcast, wide_sum_only),
                "A norm that squares before it casts got through. Its sum is fine, so its error in "
                "bfloat16 is small. Which dtype has a largest number that a square soon exceeds?",
            ),
        ),
        praise="Two inputs are enough: a long row in bfloat16, and one massive number in float16.",
    ),
    "03-5": Code(
        (
            Property(
                "the stream is left alone",
                step_keeps,
                "With a layer that adds nothing, the output must be the input, bit by bit. In "
                "float32, what does `x.float()` return?",
            ),
            Property(
                "ε inside the root",
                step_eps,
                "A vector whose root mean square is 0.001 must come out with 0.7071.",
            ),
            Property(
                "a massive number in float16",
                step_wide,
                "1,000 squared is beyond float16: the squares must be taken in float32.",
            ),
            Property(
                "the dtype stays",
                step_dtype,
                "The layer has weights in the stream's dtype and expects its input in it.",
            ),
        ),
        praise="The first fault needs float32 to show, the last one float16: test in both.",
    ),
    "03-6": Code(
        (
            Property(
                "two tensors of all layers",
                writes_shape,
                "Return attention's and the feed-forward layer's additions, each (layers, batch, "
                "seq, hidden).",
            ),
            Property(
                "each addition",
                writes_each,
                "The outputs of `self_attn` and `mlp` are what is added; a layer's own output is "
                "the whole stream.",
            ),
            Property(
                "no hook stays behind",
                writes_clean,
                "Remove every hook, or the next run records too.",
            ),
        ),
        praise="Embedding plus all of these is the vector that the final norm gets.",
    ),
}
