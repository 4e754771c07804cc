"""The exercises of chapter 05, grouped-query attention: answers, hints and properties."""

from qwen2_book.exercises.attention_checks import (
    decode_flops,
    finds_head,
    mqa_cases,
    mqa_no_copies,
    pools,
    port_cases,
    port_dtype,
    port_in_half,
    sequences,
)
from qwen2_book.exercises.base import Code, Exercise, Property, Value

EXERCISES: dict[str, Exercise] = {
    "05-1": Value(
        expected=sequences,
        praise="With 28 key-value heads not one would fit: a sequence would take 12.25 GiB.",
        hints={
            0: "That is the answer for one key-value head for each query head. The 7B has 4.",
            6: "The last one does not fit whole: round down.",
            13: "You filled the whole card with cache. The weights have to lie there too.",
        },
        otherwise="Not yet. Take `costs.weight_bytes` from 24 GiB, and divide what is left by "
        "`costs.cache_bytes` of one sequence.",
    ),
    "05-2": Value(
        expected=decode_flops,
        tolerance=1e-3,
        praise="The number of key-value heads is not in it: sharing saves bytes, not operations.",
        hints={
            1_879_048_192: "That is 4 heads. Every query head makes its own scores, whatever it "
            "shares.",
            6_576_668_672: "A multiplication and an addition count as two operations. Or did you "
            "leave out the weighted sum of the values?",
            469_762_048: "That is one layer.",
            215_510_855_712_768: "That is a whole prompt, all pairs of it. The question has one "
            "new token.",
        },
        otherwise="Not yet. For one head and one key: the score takes head_dim multiply-adds, the "
        "weighted sum as many again. Then count keys, heads and layers.",
    ),
    "05-3": Code(
        (
            Property(
                "one query head",
                mqa_cases([(1, 5, 4), (1, 1, 8)]),
                "With one query head it is plain causal attention: scores over the root of the "
                "head size, later keys hidden, softmax over the keys.",
            ),
            Property(
                "every head on its own",
                mqa_cases([(3, 6, 4), (14, 9, 8)]),
                "Each query head has its own scores and its own softmax over the one key head.",
            ),
            Property(
                "values of another width",
                mqa_cases([(2, 5, 4)], value_dim=3),
                "The output is as wide as the values; only queries and keys must agree.",
            ),
            Property(
                "no copies",
                mqa_no_copies,
                "The result is right, but keys or values were repeated for each head. Broadcasting "
                "reads them where they are.",
            ),
        ),
        praise="One key head, read once, for all queries: that is the special case.",
    ),
    "05-4": Code(
        (
            Property(
                "finds it",
                finds_head({}, (3, 2)),
                "Average, over the queries, the weight on the key one place to the left; return "
                "(layer, head) of the largest.",
            ),
            Property(
                "not the token itself",
                finds_head({(0, 1): 0, (2, 2): 2}, (4, 5)),
                "A head that looks at the token itself, or two back, won. Row i, column i − 1.",
            ),
            Property(
                "not the first token",
                finds_head({(1, 0): "first"}, (2, 3)),
                "A head that always looks at token 0 won. For one query only that is the token "
                "before: take the mean over all of them.",
            ),
        ),
        praise="The same three lines find it in the real model.",
    ),
    "05-5": Code(
        (
            Property(
                "two heads become one",
                pools([(2, 1, 3)]),
                "The mean of the two heads' rows: row 0 with row head_dim, and so on.",
            ),
            Property(
                "consecutive heads share",
                pools([(6, 2, 3), (14, 7, 4)]),
                "Heads 0, 1, 2 make the first group of three, not 0, 2, 4: those whose queries "
                "will share.",
            ),
            Property(
                "nothing to do",
                pools([(4, 4, 2)]),
                "As many groups as heads must leave the weight as it is.",
            ),
            Property(
                "a bias too",
                pools([(4, 2, 3)], columns=None),
                "A bias is pooled the same way and has one axis. Qwen2's keys and values have one.",
            ),
        ),
        praise="That is how the uptraining of the paper begins.",
    ),
    "05-6": Code(
        (
            Property(
                "one head, no bias",
                port_cases(1, 1),
                "The plain case broke: causal mask, root of the head size, softmax over keys.",
            ),
            Property(
                "the biases arrive",
                port_cases(1, 1, bias=1.0),
                "With biases the result differs. Which part of a Linear is never read?",
            ),
            Property(
                "consecutive query heads share a key head",
                port_cases(6, 2),
                "Six query heads, two key heads: 0, 1, 2 share the first. In which order does "
                "`repeat` lay its copies?",
            ),
            Property(
                "large scores in float16",
                port_in_half,
                "Biases of 160 make a score of about 100,000, and float16 ends at 65,504. Float32 "
                "for scores and softmax, or the scale before the product.",
            ),
            Property(
                "float16 in, float16 out",
                port_dtype,
                "The output's dtype must be that of x.",
            ),
        ),
        praise="All three are gone. Each has been in a real project.",
    ),
}
