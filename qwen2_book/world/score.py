"""How well a model keeps to the little world: answers about unseen stories, and its own stories.

Every answer has one right wording, so it is marked by equality; a story of the model's own is read
back into events, and each event is possible or it is not.
"""

import random
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cache

from qwen2_book.world.sentences import PRONOUNS, SENTENCES
from qwen2_book.world.story import LANGUAGES, Event, Question, State, Story, story
from qwen2_book.world.talk import told
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
    Word,
)

ROLES = {
    "person": PEOPLE,
    "other": PEOPLE,
    "colour": COLOURS,
    "toy": TOYS,
    "place": PLACES,
    "there": PLACES,
    "spot": SPOTS,
    "act": PASTIMES,
    "number": NUMBERS,
    "goods": GOODS,
    "time": TIMES,
}
TOLD = [kind for kind in SENTENCES["en"] if kind[-1] not in "?!" and kind != "opening"]


@dataclass(frozen=True)
class Asked:
    """A question of an unseen story, as a user's turn."""

    language: str
    question: Question
    story: Story
    prompt: str


@dataclass
class Reading:
    """What was understood of a story: its events, and what is wrong with which sentence."""

    sentences: int = 0
    faults: list[str] = field(default_factory=list)
    state: State = field(default_factory=State)
    events: list[Event] = field(default_factory=list)


def questions(seed: int, count: int) -> list[Asked]:
    """Questions about unseen stories, half of them in each language, all kinds alike often."""
    found, by_kind = [], Counter[tuple[str, str]]()
    random_ = random.Random(f"questions/{seed}")
    for number in range(count):
        language = LANGUAGES[number % 2]
        tale = story(random_, language)
        rarest = min(tale.questions, key=lambda q: (by_kind[language, q.kind], random_.random()))
        by_kind[language, rarest.kind] += 1
        found.append(Asked(language, rarest, tale, told(random_, tale, rarest.text)))
    return found


def majority(asked: Asked) -> str:
    """The baseline: of the words that could be the answer, the one that the story says most.

    Where several are said equally often it takes the last one: the best guess without a state.
    """

    def said(value: str) -> tuple[int, int]:
        bare = value.split(" ", 1)[-1]
        return asked.story.text.count(bare), asked.story.text.rfind(bare)

    return max(asked.question.candidates, key=said)


def read_story(text: str, language: str) -> Reading:
    """Read a story back into events; a fault is a sentence that says nothing or the impossible."""
    reading, people, last = Reading(), list[Word](), None
    for sentence in re.findall(r"[^.。]+[.。]", text):
        sentence = sentence.strip()
        reading.sentences += 1
        opening = _opening(sentence, language)
        if opening:
            people, place = opening
            if len({*map(str, people)}) < len(people):
                reading.faults.append(f"somebody comes twice: {sentence}")
            reading.state.place = dict.fromkeys(people, place)
            continue
        if sentence in {getattr(ending, language) for ending in ENDINGS}:
            continue
        event = _event(sentence, language, last)
        if event is None:
            reading.faults.append(f"not understood: {sentence}")
            continue
        absent = [w for w in event.words.values() if w in PEOPLE and w not in people]
        if absent:
            reading.faults.append(f"{absent[0]} is not in the story: {sentence}")
            continue
        if event.words["person"] is event.words.get("other"):
            reading.faults.append(f"given to oneself: {sentence}")
            continue
        if reading.state.place.get(event.words["person"]) is event.words.get("place", 0):
            reading.faults.append(f"there already: {sentence}")
            continue
        try:
            reading.state.apply(event)
            reading.events.append(event)
        except ValueError as error:
            reading.faults.append(f"{error}: {sentence}")
        last = None if event.kind in ("gives", "hands") else event.words["person"]
    return reading


def _event(sentence: str, language: str, last: Word | None) -> Event | None:
    for kind in TOLD:
        for pattern in _patterns(language, kind):
            found = pattern.fullmatch(sentence)
            if found:
                words = {}
                for role, said in found.groupdict().items():
                    word = _words(language, role).get(said.lower(), last)
                    if word is None or (role == "person" and not _may_be(said, word, language)):
                        return None
                    words["place" if role == "there" else role] = word
                return Event(kind, words)
    return None


def _may_be(said: str, word: Word, language: str) -> bool:
    pronoun = word.pronoun if language == "en" else PRONOUNS[word.pronoun]
    return said.lower() in (getattr(word, language).lower(), pronoun)


def _opening(sentence: str, language: str) -> tuple[list[Word], Word] | None:
    for pattern in _patterns(language, "opening"):
        found = pattern.fullmatch(sentence)
        if found:
            names = re.split(r", | and |、|和", found["names"])
            people = [_words(language, "person").get(name.lower()) for name in names]
            place = _words(language, "place")[found["place"].lower()]
            return None if None in people else ([p for p in people if p], place)
    return None


@cache
def _words(language: str, role: str) -> dict[str, Word]:
    """What can be said in a role, in lower case, and the word that it means."""
    meant = {}
    for word in ROLES[role]:
        meant[getattr(word, language).lower()] = word
        if role == "goods":
            meant[word.plural if language == "en" else word.zh] = word
        if role == "there":
            meant[getattr(word, language).split(" ", 1)[-1]] = word
    return meant


@cache
def _patterns(language: str, kind: str) -> list[re.Pattern]:
    return [re.compile(_pattern(text, language), re.I) for text in SENTENCES[language][kind]]


def _pattern(wording: str, language: str) -> str:
    parts = []
    for piece in re.split(r"(\{\w+\})", wording):
        role = piece[1:-1]
        if not piece.startswith("{"):
            parts.append(re.escape(piece))
        elif role == "names":
            parts.append("(?P<names>.+?)")
        elif role == "measure":
            parts.append("(?:" + "|".join(sorted({w.measure for w in TOYS + GOODS})) + ")")
        else:
            said = sorted(_words(language, role), key=len, reverse=True)
            if role == "person":
                said += [p if language == "en" else PRONOUNS[p] for p in PRONOUNS]
            parts.append(f"(?P<{role}>{'|'.join(map(re.escape, said))})")
    return "".join(parts)
