"""What a model is pretrained on: plain documents of the little world, any number of them.

Document k of a seed is a function of (seed, k) alone, so a stream can be entered anywhere and a
resumed run sees what an uninterrupted one would have seen.
"""

import random
import re
from collections.abc import Callable, Iterator

from qwen2_book.world.facts import FACTS, fact
from qwen2_book.world.sentences import NONE_LEFT, SENTENCES
from qwen2_book.world.story import LANGUAGES, Story, plot, story, tell
from qwen2_book.world.talk import CHANNELS, SMALL_TALK, STORY_REQUESTS, SYSTEM_PROMPTS
from qwen2_book.world.words import (
    COLOURS,
    ENDINGS,
    GOODS,
    NUMBERS,
    PASTIMES,
    PEOPLE,
    PLACES,
    SPOTS,
    TIMES,
    TOYS,
)

ASKED = {"en": ("Question: ", "Answer: "), "zh": ("问：", "答：")}
WORDS = [*PEOPLE, *COLOURS, *TOYS, *GOODS, *PLACES, *SPOTS, *PASTIMES, *TIMES, *NUMBERS]


def document(seed: int, index: int, only_recited: bool = False) -> str:
    """Document `index` of the stream that a seed names; or, to begin with, a list said twice."""
    random_ = random.Random(f"{seed}/{index}")
    language = random_.choice(LANGUAGES)
    kinds, shares = zip(*KINDS.items(), strict=True)
    kind = recited if only_recited else random_.choices(kinds, shares)[0]
    return kind(random_, language)


def documents(seed: int, start: int = 0) -> Iterator[str]:
    """The endless stream of a seed, from document `start` on."""
    while True:
        yield document(seed, start)
        start += 1


def questioned(random_: random.Random, language: str) -> str:
    """A story, then questions about it with their answers."""
    tale = story(random_, language)
    asked = random_.sample(tale.questions, min(len(tale.questions), random_.randint(4, 8)))
    return "\n".join([tale.text, *(_asked(q.text, q.answer, language) for q in asked)])


def parallel(random_: random.Random, language: str) -> str:
    """The same events told in both languages."""
    people, place, events = plot(random_)
    order = LANGUAGES if language == "en" else LANGUAGES[::-1]
    tales: list[Story] = [tell(random_, people, place, events, each) for each in order]
    return "\n".join(tale.text for tale in tales)


def known(random_: random.Random, language: str) -> str:
    """A few facts, each asked and answered."""
    return "\n".join(_asked(*fact(random_, language), language) for _ in range(4))


def recited(random_: random.Random, language: str) -> str:
    """Random words said two or three times over: all that they teach is to look back and copy.

    A model that begins with them soon grows the heads that continue a repeated pattern; answering
    questions about a story needs the same heads.
    """
    words = [getattr(word, language) for word in random_.sample(WORDS, random_.randint(4, 16))]
    joint = ", " if language == "en" else "，"
    return "\n".join([joint.join(words)] * random_.choice((2, 3)))


def _asked(question: str, answer: str, language: str) -> str:
    before, between = ASKED[language]
    return f"{before}{question}\n{between}{answer}"


KINDS: dict[Callable[[random.Random, str], str], float] = {
    questioned: 0.66,
    parallel: 0.12,
    known: 0.1,
    recited: 0.12,
}


def tokenizer_texts() -> list[str]:
    """What the tokenizer is trained on: English as it is written, Chinese cut into words.

    Chinese has no spaces, so on running text byte-pair encoding would learn whole clauses such as
    小明有一个 as one token, and a name would hardly ever be the same token twice.
    """
    random_ = random.Random(0)
    english = [make(random_, "en") for make in (questioned, known) for _ in range(1500)]
    templates = [text for kind in SENTENCES["zh"].values() for text in kind] + [NONE_LEFT["zh"]]
    pieces = re.split(r"\{\w+\}|[，。？：]", "，".join(templates)) + ["、"]
    words = [word.zh for word in WORDS] + [word.measure for word in (*TOYS, *GOODS)] + pieces
    talk = [side for pair in FACTS["en"] for side in pair]
    talk += [text for side in CHANNELS.values() for text in side]
    talk += [text for asked, answers in SMALL_TALK["en"] for text in (*asked, *answers)]
    talk += STORY_REQUESTS["en"] + SYSTEM_PROMPTS["en"] + ["system", "user", "assistant"]
    rare = [side for pair in FACTS["zh"] for side in pair] + [word.zh for word in ENDINGS]
    rare += [text for asked, answers in SMALL_TALK["zh"] for text in (*asked, *answers)]
    rare += STORY_REQUESTS["zh"] + SYSTEM_PROMPTS["zh"]
    names = [person.en for person in PEOPLE]  # as an answer begins, with no space before
    chinese = ["\n".join(sorted({word for word in words if word}))] * 300
    return (
        english
        + chinese
        + (talk + names) * 30
        + [character for text in rare for character in text] * 30
    )
