"""A plugin for nbval: numbers may differ by one in the last printed digit, nothing else may.

A number after "≈" follows how a processor rounds: it may be up to 1.5 times as large or as small.

Load it with `-p nbval_last_digit`. A new output that agrees in this way is taken for the stored
one before nbval's own strict comparison. Only numbers with a decimal point, an exponent or a
percent sign were rounded, so all others must be equal; columns may shift by a space.
"""

import re

from nbval.plugin import IPyNbCell

NUMBER = re.compile(r"(?:≈|(?<![\w.]))[-−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?%?(?![\w])")


def _value(text: str) -> tuple[float, int]:
    """A printed number, and the power of ten of its last digit."""
    mantissa, _, exponent = text.replace(",", "").replace("−", "-").strip("≈%").partition("e")
    last = int(exponent or 0) - len(mantissa.partition(".")[2])
    return float(mantissa + "e" + (exponent or "0")), last


def _close(stored: str, new: str) -> bool:
    if stored == new:
        return True
    if ("%" in stored) != ("%" in new):
        return False
    if "≈" in stored and "≈" in new:
        one, other = _value(stored)[0], _value(new)[0]
        return one * other > 0 and 1 / 1.5 <= one / other <= 1.5
    if not re.search(r"[.%e]", stored):
        return False
    (old, last), (value, last_new) = _value(stored), _value(new)
    return "≈" not in stored + new and last == last_new and abs(old - value) <= 1.001 * 10.0**last


def agreed(stored: str, new: str) -> str:
    """The stored text if the new one is the same but for last digits, else the new one."""
    words = [re.sub(r" +", " ", text) for text in (NUMBER.sub("#", stored), NUMBER.sub("#", new))]
    pairs = list(zip(NUMBER.findall(stored), NUMBER.findall(new), strict=False))
    same = words[0] == words[1] and len(NUMBER.findall(stored)) == len(NUMBER.findall(new))
    return stored if same and all(_close(*pair) for pair in pairs) else new


def _agreed_outputs(new: list, stored: list) -> list:
    for mine, theirs in zip(new, stored, strict=False):
        if "text" in mine and "text" in theirs:
            mine["text"] = agreed(theirs["text"], mine["text"])
        for kind, text in mine.get("data", {}).items():
            if isinstance(text, str) and isinstance(theirs.get("data", {}).get(kind), str):
                mine["data"][kind] = agreed(theirs["data"][kind], text)
    return new


_strict = IPyNbCell.compare_outputs


def _compare(self, test, ref, skip_compare=None):
    return _strict(self, _agreed_outputs(test, ref), ref, skip_compare)


IPyNbCell.compare_outputs = _compare
