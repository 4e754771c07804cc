"""Chapter 15's exercises: planted bugs and usual wrong answers, each named by what fails."""

import itertools
import math
import statistics

import pytest
from planted import failed, printed

from qwen2_book.exercises import check

WRAP = ("amax(2) / 128", "amax(2) / 127")
ORDER = ("scale.repeat(1, group)", "scale.repeat_interleave(group, 1)")
CUT = ("(weight / scale).int()", "(weight / scale).round().int()")
NAMES = {
    CUT: "off by half a step at most",
    WRAP: "the largest weight keeps its sign",
    ORDER: "each group has its own scale",
}


@pytest.mark.parametrize("count", range(3))
def test_each_planted_bug_fails_its_property(count):
    for left in itertools.combinations(NAMES, 3 - count):
        repairs = [repair for repair in NAMES if repair not in left]
        found = failed("15-3", printed("15_making_it_fast", "stored_numbers", *repairs))
        assert found == [name for repair, name in NAMES.items() if repair in left]


def test_the_repaired_function_is_right():
    assert check("15-3", printed("15_making_it_fast", "stored_numbers", *NAMES)).right


def test_wrong_limits_get_their_hints():
    for wrong, hint in (
        (100e9 / (2 * 7_615_616_512), "one row"),
        (100e9 / (2 * 6_525_618_688), "left out the head"),
        (14.14, "two bytes a weight"),
        ("3.54 tokens/s", "That is float32"),
        (0.1414, "seconds a token"),
    ):
        verdict = check("15-1", wrong)
        assert not verdict.right and hint in verdict.message
    assert check("15-1", "7.07").right


def test_wrong_numbers_of_rows():
    def rows(factor=2.0, rounding=math.ceil, least=1):
        return lambda speed, bandwidth, size: max(
            least, rounding(size * speed / (factor * bandwidth))
        )

    assert failed("15-2", rows()) == []
    assert "two operations a weight and row" in failed("15-2", rows(factor=1))
    assert failed("15-2", rows(rounding=math.floor)) == ["a whole number, rounded up"]
    assert "a whole number, rounded up" in failed("15-2", rows(rounding=lambda x: x))
    assert "one row at least" in failed("15-2", rows(rounding=math.floor, least=0))


def test_wrong_comparisons():
    def ratios(before, after, start=1):
        return [a / b for a, b in zip(before[start:], after[start:], strict=True)]

    assert failed("15-4", lambda a, b: statistics.median(ratios(a, b))) == []
    assert "the first round is left out" in failed("15-4", lambda a, b: sum(a) / sum(b))
    assert "one bad round does not matter" in failed(
        "15-4", lambda a, b: statistics.mean(ratios(a, b))
    )
    assert "compared within a round" in failed(
        "15-4", lambda a, b: statistics.median(a[1:]) / statistics.median(b[1:])
    )
    assert "compared within a round" in failed("15-4", lambda a, b: min(a[1:]) / min(b[1:]))


def test_wrong_counts_of_passes():
    def batches(wanted, slots):
        groups = [wanted[at : at + slots] for at in range(0, len(wanted), slots)]
        return sum(max(group) - 1 for group in groups)

    def too_many(wanted, slots):
        free = [0] * slots
        for count in wanted:
            free[free.index(min(free))] += count
        return max(free)

    def average(wanted, slots):
        return math.ceil((sum(wanted) - len(wanted)) / slots)

    assert failed("15-5", batches) == ["filled again at once", "requests for one token"]
    assert "one slot" in failed("15-5", too_many)
    assert "a slot for each" in failed("15-5", average)


def test_wrong_guesses():
    def by(rate, first=0):
        def answer(alpha, seconds):
            rates = [rate(alpha, k) / took for k, took in enumerate(seconds)]
            return max(range(first, len(rates)), key=rates.__getitem__)

        return answer

    def expected(alpha, k):
        return sum(alpha**n for n in range(k + 1))

    def closed(alpha, k):
        return (1 - alpha ** (k + 1)) / (1 - alpha)

    assert failed("15-6", by(expected)) == []
    assert "dear rows" in failed("15-6", by(expected, first=1))
    assert "most tokens a second" in failed("15-6", by(lambda alpha, k: 1 + alpha * k))
    assert "ZeroDivisionError" in check("15-6", by(closed)).message
    assert "free rows" in failed("15-6", lambda alpha, seconds: 0)
