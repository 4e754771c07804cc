"""Lessons, before whole stories: one kind of thing happens, and all that can be asked is asked.

A lesson is a very short story with two to five people. Who has what cannot be guessed from it, only
looked up, so a model finds out early that looking up pays. Lesson k of a seed is a function of
(seed, k) alone; its answers come from the story's own state.
"""

import random
import re
from collections.abc import Sequence

from qwen2_book.world.documents import ASKED
from qwen2_book.world.story import LANGUAGES, Event, Question, plot, tell
from qwen2_book.world.talk import Message, messages, told
from qwen2_book.world.words import (
    COLOURS,
    FOOD,
    GOODS,
    NUMBERS,
    PASTIMES,
    PEOPLE,
    PLACES,
    SPOTS,
    TOYS,
    Word,
)

Piece = tuple[str, bool]  # text, and whether it is to be learned
KINDS = ("colour", "who", "spot", "where", "count", "next")
HARD = [kind for kind in KINDS if kind != "spot"]  # asked about twice as often


def lesson(seed: int, index: int, changes: bool, asked: bool) -> list[Piece]:
    """Lesson `index` of a seed, as pieces of text of which only the asked words are learned.

    Without `changes` each person has one thing; with them things are given away, people walk on
    and numbers change. Where it is not `asked`, the answers are stated, each a sentence that
    begins with what it is about and ends with what is to be known.
    """
    random_ = random.Random(f"lessons/{seed}/{index}")
    language, kind = random_.choice(LANGUAGES), random_.choice([*KINDS, *HARD])
    people, place, events = lesson_plot(random_, kind, changes)
    tale = tell(random_, people, place, events, language)
    questions = [question for question in tale.questions if question.kind == kind]
    random_.shuffle(questions)
    told = tale.text
    if not changes and kind != "where":  # only what happens: no opening, no ending
        sentences = re.findall(r"[^.。]+[.。]", told)
        told = "".join(sentences[1 : 1 + len(events)]).strip()
    pieces = [(told, False)]
    for question in questions:
        pieces += _lines(question, language, asked or kind in ("who", "next"), all_learned=False)
    return pieces


def exercise(seed: int, index: int) -> list[Piece]:
    """A whole story with all its questions, of which the answers are learned."""
    random_ = random.Random(f"exercises/{seed}/{index}")
    language = random_.choice(LANGUAGES)
    tale = tell(random_, *plot(random_), language)
    pieces = [(tale.text, False)]
    for question in random_.sample(tale.questions, len(tale.questions)):
        pieces += _lines(question, language, asked=True, all_learned=True)
    return pieces


def talked(seed: int, index: int) -> list[Message]:
    """A lesson with changes, or a whole story, as a conversation in which everything is asked."""
    random_ = random.Random(f"talked/{seed}/{index}")
    language, kind = random_.choice(LANGUAGES), random_.choice(KINDS)
    whole = random_.random() < 0.5
    tale = tell(random_, *(plot(random_) if whole else lesson_plot(random_, kind, True)), language)
    questions = [q for q in tale.questions if whole or q.kind == kind]
    turns = [(q.text, q.answer) for q in random_.sample(questions, len(questions))]
    turns[0] = told(random_, tale, turns[0][0]), turns[0][1]
    return messages(random_, language, turns)


def lesson_plot(
    random_: random.Random, kind: str, changes: bool
) -> tuple[list[Word], Word, list[Event]]:
    """People, where they meet, and events that all bear on questions of one kind."""
    people, place = random_.sample(PEOPLE, random_.randint(2, 5)), random_.choice(PLACES)
    things = random_.sample(TOYS, len(people))
    return people, place, EVENTS[kind](random_, people, things, changes)


def _colour(
    random_: random.Random, people: list[Word], things: list[Word], changes: bool
) -> list[Event]:
    return [
        Event("has", {"person": person, "colour": random_.choice(COLOURS), "toy": toy})
        for person, toy in zip(people, things, strict=True)
    ]


def _who(
    random_: random.Random, people: list[Word], things: list[Word], changes: bool
) -> list[Event]:
    events = _colour(random_, people, things, changes)
    for event in random_.sample(events, len(events) if changes else 0):
        giver = event.words["person"]
        for _ in range(random_.choice((0, 1, 1, 2))):
            other = random_.choice([person for person in people if person is not giver])
            events.append(Event("gives", event.words | {"person": giver, "other": other}))
            giver = other
    return events


def _spot(
    random_: random.Random, people: list[Word], things: list[Word], changes: bool
) -> list[Event]:
    owned = _colour(random_, people, things, changes)
    put = [Event("puts", event.words | {"spot": random_.choice(SPOTS)}) for event in owned]
    return owned + random_.sample(put, len(put))


def _where(
    random_: random.Random, people: list[Word], things: list[Word], changes: bool
) -> list[Event]:
    walking = random_.sample(people, len(people)) + [random_.choice(people)] * changes
    return [Event("goes", {"person": p, "place": random_.choice(PLACES)}) for p in walking]


def _count(
    random_: random.Random, people: list[Word], things: list[Word], changes: bool
) -> list[Event]:
    goods = random_.choice(GOODS)
    events, have = [], dict.fromkeys(people, 0)
    for person in people[: 2 if changes else 5]:
        have[person] = random_.randint(1, 6)
        words = {"person": person, "goods": goods, "number": NUMBERS[have[person]]}
        events.append(Event("finds", words))
    for _ in range(random_.randint(1, 2) if changes else 0):
        person, other = random_.sample(people[:2], 2)
        kinds = ["finds"] * (sum(have.values()) < 12) + ["hands"] * (have[person] > 0)
        kinds += ["eats"] * (have[person] > 0 and goods.en in FOOD)
        if not kinds:
            continue
        kind = random_.choice(kinds)
        most = min(6, 12 - sum(have.values())) if kind == "finds" else have[person]
        number = random_.randint(1, most)
        have[person] += number if kind == "finds" else -number
        words = {"person": person, "goods": goods, "number": NUMBERS[number]}
        if kind == "hands":
            have[other] += number
            words["other"] = other
        events.append(Event(kind, words))
    return events


def _next(
    random_: random.Random, people: list[Word], things: list[Word], changes: bool
) -> list[Event]:
    people = people[: 3 if changes else 2]
    order = [person for person in people for _ in range(2 + changes * random_.randint(0, 1))]
    acts = {person: iter(random_.sample(PASTIMES, 3)) for person in people}
    if changes:
        random_.shuffle(order)
    return [Event("does", {"person": person, "act": next(acts[person])}) for person in order]


EVENTS = dict(zip(KINDS, (_colour, _who, _spot, _where, _count, _next), strict=True))


def _lines(question: Question, language: str, asked: bool, all_learned: bool) -> Sequence[Piece]:
    before, between = ASKED[language]
    answer, value = question.answer, question.value
    joint = " " if language == "en" else ""
    start = f"\n{before}{question.text}\n{between}" if asked else joint
    if all_learned or value not in answer:
        return [(start, False), (answer, True)]
    first, _, rest = answer.partition(value)
    return [(start + first, False), (value, True), (rest, False)]
