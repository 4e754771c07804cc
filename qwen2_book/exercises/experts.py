"""The exercises of chapter 08, mixture of experts: answers, hints and properties."""

from qwen2_book.exercises.base import Code, Exercise, Property, Value
from qwen2_book.exercises.experts_checks import (
    balance_collapsed,
    balance_even,
    balance_random,
    experts_read,
    gpus_of_a_token,
    late_dropped,
    nothing_dropped,
    parts_apart,
    parts_follow_the_layer,
    parts_sum,
    rounded_up,
    route_choices,
    route_precision,
    route_weights,
)

EXERCISES: dict[str, Exercise] = {
    "08-1": Value(
        expected=experts_read,
        praise="8 in each of 28 layers, out of 1,792 that must be ready.",
        hints={
            8: "That is one layer. Every layer has a router and experts of its own.",
            1792: "Those are all there are. A token runs through a few of them.",
            64: "Those are the experts of one layer, chosen or not.",
            252: "The shared experts were not to be counted.",
            448: "The shared experts were not to be counted.",
        },
        otherwise="Not yet. How many layers have experts, and how many does a token use in each?",
    ),
    "08-2": Code(
        (
            Property(
                "nothing dropped in balance",
                nothing_dropped,
                "With a factor of 1 and equal loads every pair finds room: capacity counts PAIRS, "
                "tokens × k, shared out over the experts.",
            ),
            Property(
                "who comes first is served",
                late_dropped,
                "For each pair count how many earlier pairs want the same expert; it is dropped if "
                "that many fill the capacity.",
            ),
            Property(
                "capacity rounded up",
                rounded_up,
                "A capacity of 7.1 is 8. And token by token: all choices of a token come before "
                "those of the next.",
            ),
        ),
        praise="A capacity bounds the time of the slowest expert, and pays with tokens.",
    ),
    "08-3": Code(
        (
            Property(
                "the parts sum to the layer",
                parts_sum,
                "Routed plus shared must be what the layer gives, for one token and for many, in "
                "the shape of x.",
            ),
            Property(
                "each part by itself",
                parts_apart,
                "The shared part is sigmoid(gate) × shared expert; the routed part must not "
                "contain any of it. The order is (routed, shared).",
            ),
            Property(
                "a layer that renormalises",
                parts_follow_the_layer,
                "Take weights and choices from the layer's own `route`: it knows its settings.",
            ),
        ),
        praise="Now put each part in the place of the layer, and measure.",
    ),
    "08-4": Value(
        expected=gpus_of_a_token,
        praise="About 5.4 of 8: most tokens visit most machines.",
        hints={
            8: "Two of a token's experts may stand on the same GPU.",
            1: "One GPU holds 8 experts, but a token's 8 experts are seldom all on one.",
            5.2511: "Nearly: that lets a token choose the same expert twice. The 8 are different.",
        },
        otherwise="Not yet. With which probability does one given GPU hold none of the 8 experts?",
        tolerance=0.003,
    ),
    "08-5": Code(
        (
            Property("the right experts", route_choices, "The k largest, the largest first."),
            Property(
                "weights are probabilities among all experts",
                route_weights,
                "The weights of the chosen ones must not sum to one: over which experts does "
                "Qwen2 take the softmax?",
            ),
            Property(
                "float32 inside, the logits' dtype outside",
                route_precision,
                "Compute the softmax in float32 and convert the weights at the end.",
            ),
        ),
        praise="Same choices, other weights: no shape and no error tells the two apart.",
    ),
    "08-6": Code(
        (
            Property("k in balance", balance_even, "Every expert in turn must give k."),
            Property(
                "E in collapse",
                balance_collapsed,
                "If all tokens go to one expert, its mean probability is 1 and the loss is E. What "
                "does the probability go through on its way?",
            ),
            Property(
                "equal to the package's",
                balance_random,
                "The gradient must be that of equation (3): through the probabilities, once.",
            ),
        ),
        praise="Test a loss where it should be large, not only where it should be small.",
    ),
}
