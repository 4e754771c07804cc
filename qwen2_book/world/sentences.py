"""How the world's events, questions and answers are said, in English and in Chinese."""

import random
from collections.abc import Mapping
from functools import cache

from qwen2_book.world.words import Word

# A kind that ends in "?" asks, one that ends in "!" answers, the others tell.
SENTENCES = {
    "en": {
        "opening": ["{time}, {names} were {place}.", "{time}, {names} met {place}."],
        "has": ["{person} had a {colour} {toy}.", "{person} brought a {colour} {toy}."],
        "gives": [
            "{person} gave the {colour} {toy} to {other}.",
            "{person} gave {other} the {colour} {toy}.",
            "{other} got the {colour} {toy} from {person}.",
        ],
        "puts": [
            "{person} put the {colour} {toy} {spot}.",
            "{person} left the {colour} {toy} {spot}.",
        ],
        "goes": [
            "{person} went to {there}.",
            "{person} ran to {there}.",
            "Then {person} walked to {there}.",
        ],
        "does": ["{person} {act}.", "Then {person} {act}.", "After that, {person} {act}."],
        "finds": ["{person} found {number} {goods}.", "{person} bought {number} {goods}."],
        "hands": [
            "{person} gave {number} {goods} to {other}.",
            "{person} gave {other} {number} {goods}.",
        ],
        "eats": ["{person} ate {number} {goods}."],
        "colour?": ["What colour is the {toy}?"],
        "colour!": ["The {toy} is {colour}."],
        "who?": ["Who has the {colour} {toy}?", "Who has the {colour} {toy} now?"],
        "who!": ["{person} has the {colour} {toy}."],
        "spot?": ["Where is the {colour} {toy}?", "Where is the {colour} {toy} now?"],
        "spot!": ["The {colour} {toy} is {spot}."],
        "where?": ["Where is {person}?", "Where is {person} now?"],
        "where!": ["{person} is {place}."],
        "count?": ["How many {goods} does {person} have?"],
        "count!": ["{person} has {number} {goods}."],
        "next?": ["What did {person} do after {pronoun} {act}?"],
        "next!": ["{person} {next}."],
        "unknown!": ["The story does not say."],
    },
    "zh": {
        "opening": ["{time}，{names}在{place}。", "{time}，{names}在{place}见面了。"],
        "has": [
            "{person}有一{measure}{colour}色的{toy}。",
            "{person}带来了一{measure}{colour}色的{toy}。",
        ],
        "gives": [
            "{person}把{colour}色的{toy}给了{other}。",
            "{person}把{colour}色的{toy}送给了{other}。",
            "{other}从{person}那里得到了{colour}色的{toy}。",
        ],
        "puts": [
            "{person}把{colour}色的{toy}放在了{spot}。",
            "{person}把{colour}色的{toy}留在了{spot}。",
        ],
        "goes": ["{person}去了{there}。", "{person}跑到了{there}。", "然后{person}走到了{there}。"],
        "does": ["{person}{act}。", "然后{person}{act}。", "接着，{person}{act}。"],
        "finds": [
            "{person}找到了{number}{measure}{goods}。",
            "{person}买了{number}{measure}{goods}。",
        ],
        "hands": [
            "{person}给了{other}{number}{measure}{goods}。",
            "{person}分给{other}{number}{measure}{goods}。",
        ],
        "eats": ["{person}吃了{number}{measure}{goods}。"],
        "colour?": ["{toy}是什么颜色的？"],
        "colour!": ["{toy}是{colour}色的。"],
        "who?": ["谁有{colour}色的{toy}？", "{colour}色的{toy}现在在谁那里？"],
        "who!": ["{person}有{colour}色的{toy}。"],
        "spot?": ["{colour}色的{toy}在哪里？", "{colour}色的{toy}现在在哪里？"],
        "spot!": ["{colour}色的{toy}在{spot}。"],
        "where?": ["{person}在哪里？", "{person}现在在哪里？"],
        "where!": ["{person}在{place}。"],
        "count?": ["{person}有几{measure}{goods}？"],
        "count!": ["{person}有{number}{measure}{goods}。"],
        "next?": ["{person}{act}以后，又做了什么？"],
        "next!": ["{person}{next}。"],
        "unknown!": ["故事里没有说。"],
    },
}
NONE_LEFT = {"en": "{person} has no {goods} left.", "zh": "{person}没有{goods}了。"}
PRONOUNS = {"he": "他", "she": "她"}


@cache
def _led_by_person(language: str, kind: str) -> list[str]:
    """The wordings in which a pronoun may stand for the person: nobody else is named before."""
    told = SENTENCES[language][kind]
    return [text for text in told if text.index("{person}") < (text.find("{other}") % 1000)]


def say(
    language: str,
    kind: str,
    random_: random.Random,
    words: Mapping[str, Word],
    pronoun: bool = False,
    names: str = "",
) -> str:
    """One wording of an event, a question or an answer, with its words filled in."""
    wordings = _led_by_person(language, kind) if pronoun else SENTENCES[language][kind]
    wording = random_.choice(wordings)
    none_left = kind == "count!" and words["number"].zh == "零"
    if none_left:
        wording = NONE_LEFT[language]
    slots = {role: getattr(word, language) for role, word in words.items()} | {"names": names}
    if "place" in words:
        slots["there"] = slots["place"].split(" ", 1)[-1]
    if "person" in words:
        he = words["person"].pronoun
        slots["pronoun"] = he if language == "en" else PRONOUNS[he]
        if pronoun:
            slots["person"] = slots["pronoun"]
    counted = words.get("goods", words.get("toy"))
    if counted is not None:
        slots["measure"] = counted.measure
    if "goods" in words and language == "en" and not _single(words):
        slots["goods"] = words["goods"].plural
    text = wording.format(**slots)
    return text[0].upper() + text[1:]


def _single(words: Mapping[str, Word]) -> bool:
    return "number" in words and words["number"].en == "one"
