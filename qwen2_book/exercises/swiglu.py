"""The exercises of chapter 06, SwiGLU: answers, hints and properties."""

from qwen2_book.exercises.base import Code, Exercise, Property, Value
from qwen2_book.exercises.swiglu_checks import (
    fused_as_two,
    fused_order,
    plain_width,
    products,
    products_wild,
    ranks_agree,
    separation_cases,
    separation_ties,
    slope,
    slope_far,
)

EXERCISES: dict[str, Exercise] = {
    "06-1": Value(
        expected=plain_width,
        praise="Three matrices of 18,944 hold as much as two of half as many neurons again.",
        hints={
            18_944: "That many neurons with two matrices hold a third less. The weights must be "
            "equal, not the widths.",
            37_888: "Twice would be four matrices against three.",
            14_336: "That is four times the hidden size, the old habit. Count Qwen2's own weights.",
            12_629: "The wrong way round: the layer without a gate may be wider, not narrower.",
        },
        otherwise="Not yet. Three matrices of width F, two of width M: when are they equal?",
    ),
    "06-2": Code(
        (
            Property(
                "the slope near zero",
                slope([0.0, 0.5, -0.5, 2.0]),
                "SiLU is a product, so its derivative has two terms: σ(x), and x times the "
                "derivative of σ.",
            ),
            Property(
                "the hollow on the negative side",
                slope([-1.2784645, -1.0, -2.4, -5.0]),
                "Left of −1.278 the curve falls to the right: the slope there is below zero.",
            ),
            Property(
                "far out",
                slope_far,
                "At ±200 in float32 the slope is 0 or 1, not NaN: exp(200) overflows, "
                "torch.sigmoid does not.",
            ),
        ),
        praise="σ(x)(1 + x(1 − σ(x))): nowhere exactly dead, as ReLU is.",
    ),
    "06-3": Code(
        (
            Property(
                "it multiplies",
                products,
                "silu(a) − silu(−a) = a. One neuron has gate a and up b; what must the other have?",
            ),
            Property(
                "large and small numbers too",
                products_wild,
                "The identity is exact, so no constant may depend on the size of the numbers.",
            ),
        ),
        praise="A layer without a product can only approximate this, piece by piece.",
    ),
    "06-4": Code(
        (
            Property(
                "gate rows first",
                fused_order,
                "`gate_up` holds the gate's rows, then those of up; SiLU belongs to the first.",
            ),
            Property(
                "equal to two projections",
                fused_as_two,
                "Any number of leading axes: split the last axis, not the first.",
            ),
        ),
        praise="One large matrix product in place of two; chapter 15 asks what that is worth.",
    ),
    "06-5": Code(
        (
            Property(
                "one rank",
                ranks_agree([1]),
                "With a single rank it must already be SwiGLU: to which half does SiLU belong?",
            ),
            Property(
                "two ranks",
                ranks_agree([2]),
                "Rank 0 must hold the first half of the gate's rows AND the same rows of up. What "
                "does it hold now?",
            ),
            Property("any number of ranks", ranks_agree([3, 4, 6]), "Which neurons share a rank?"),
        ),
        praise="Cut gate and up first, then join; never join, then cut.",
    ),
    "06-6": Code(
        (
            Property(
                "counts pairs",
                separation_cases,
                "Over all pairs of one labelled and one other token: in which share is the "
                "labelled one larger?",
            ),
            Property(
                "ties count half",
                separation_ties,
                "Where both are equal the pair says nothing: it counts as half. A neuron that is "
                "constant must get 0.5.",
            ),
        ),
        praise="Now run it on a label of your own.",
    ),
}
