"""A plugin for nbval: numbers may differ by one in the last printed digit, nothing else may.

Load it with `-p nbval_last_digit`. A new output that agrees in this way is taken for the stored
one before nbval's own strict comparison. Only numbers with a decimal point, an exponent or a
percent sign were rounded, so all others must be equal; columns may shift by a space.
"""

import re

from nbval.plugin import IPyNbCell

NUMBER = re.compile(r"(?<![\w.])[-−]?\d[\d,]*(?:\.\d*)?(?:e[-+]?\d+)?%?(?![\w])")


def _close(stored: str, new: str) -> bool:
    if stored == new:
        return True
    if not re.search(r"[.%e]", stored) or ("%" in stored) != ("%" in new):
        return False

    def parts(text: str) -> tuple[float, int]:
        mantissa, _, exponent = text.replace(",", "").replace("−", "-").rstrip("%").partition("e")
        return float(mantissa + "e" + (exponent or "0")), int(exponent or 0) - len(
            mantissa.partition(".")[2]
        )

    (old, last), (value, last_new) = parts(stored), parts(new)
    return last == last_new and abs(old - value) <= 1.001 * 10.0**last


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
