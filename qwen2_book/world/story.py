"""A little world: people who own, carry, give, find and eat things, and what can be asked of it.

A story is a list of events that change a state. Each event can be said in several ways in English
and in Chinese; what is asked afterwards is answered from the state, so every answer can be marked.
"""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from qwen2_book.world.sentences import say
from qwen2_book.world.words import (
    COLOURS,
    ENDINGS,
    FOOD,
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

LANGUAGES = ("en", "zh")
LARGEST = len(NUMBERS) - 1


@dataclass(frozen=True)
class Event:
    """Something that happens: its kind (a key of SENTENCES) and who and what takes part."""

    kind: str
    words: dict[str, Word]


@dataclass(frozen=True)
class Question:
    """What is asked, the right answer, the word that matters, and the candidates in the story."""

    kind: str
    text: str
    answer: str
    value: str
    candidates: tuple[str, ...]


@dataclass(frozen=True)
class Story:
    """A story in one language, and every question that its state can answer."""

    language: str
    text: str
    questions: list[Question]


@dataclass
class State:
    """What is the case after the events so far."""

    toys: dict[Word, Word] = field(default_factory=dict)  # toy -> its colour
    owner: dict[Word, Word] = field(default_factory=dict)  # toy -> who has it
    spot: dict[Word, Word] = field(default_factory=dict)  # toy -> where it was put down
    place: dict[Word, Word] = field(default_factory=dict)  # person -> where they are
    goods: dict[tuple[Word, Word], int] = field(default_factory=dict)  # (person, goods) -> how many
    acts: list[Event] = field(default_factory=list)  # pastimes, in order

    def apply(self, event: Event) -> None:
        """Change the state as the event says. Raises ValueError for what cannot happen."""
        w, kind = event.words, event.kind
        if kind == "has":
            self.toys[w["toy"]], self.owner[w["toy"]] = w["colour"], w["person"]
        elif kind in ("gives", "puts"):
            person, toy, colour = w["person"], w["toy"], w["colour"]
            if self.owner.get(toy) is not person or self.toys[toy] is not colour:
                raise ValueError(f"{person} does not have a {colour} {toy}")
            if kind == "gives":
                self.owner[toy] = w["other"]
            else:
                del self.owner[toy]
                self.spot[toy] = w["spot"]
        elif kind == "goes":
            self.place[w["person"]] = w["place"]
        elif kind == "does":
            self.acts.append(event)
        else:
            self._count(event)

    def _count(self, event: Event) -> None:
        w, number = event.words, NUMBERS.index(event.words["number"])
        key = (w["person"], w["goods"])
        left = self.goods.get(key, 0) + (number if event.kind == "finds" else -number)
        if not 0 <= left <= LARGEST:
            raise ValueError(f"{w['person']} would have {left} {w['goods'].plural}")
        self.goods[key] = left
        if event.kind == "hands":
            other = (w["other"], w["goods"])
            self.goods[other] = self.goods.get(other, 0) + number


def plot(random_: random.Random) -> tuple[list[Word], Word, list[Event]]:
    """People, where they meet, and a possible chain of three to nine events."""
    people, place = random_.sample(PEOPLE, random_.choice((2, 2, 3))), random_.choice(PLACES)
    state = State(place=dict.fromkeys(people, place))
    events: list[Event] = []
    toys = random_.sample(TOYS, len(people))
    for person, toy in zip(people, toys, strict=True):
        if random_.random() < 0.75:
            colour = random_.choice(COLOURS)
            events.append(Event("has", {"person": person, "colour": colour, "toy": toy}))
    for event in events:
        state.apply(event)
    goods = random_.choice(GOODS)
    for _ in range(random_.randint(3, 6)):
        event = _next(random_, state, people, goods)
        state.apply(event)
        events.append(event)
    return people, place, events


def _next(random_: random.Random, state: State, people: list[Word], goods: Word) -> Event:
    person, other = random_.sample(people, 2)
    mine = [toy for toy, owner in state.owner.items() if owner is person]
    have = state.goods.get((person, goods), 0)
    room = LARGEST - sum(state.goods.values())
    kinds = ["goes", "goes", "does"] + ["gives", "gives", "puts"] * bool(mine)
    kinds += ["finds", "finds"] * (room >= 2) + ["hands", "hands"] * (have > 0)
    kinds += ["eats", "eats"] * (have > 0 and goods.en in FOOD)
    words, kind = {"person": person}, random_.choice(kinds)
    if kind == "goes":
        here = state.place[person]
        words["place"] = random_.choice([place for place in PLACES if place is not here])
    elif kind == "does":
        words["act"] = random_.choice(PASTIMES)
    elif kind in ("gives", "puts"):
        toy = random_.choice(mine)
        words |= {"toy": toy, "colour": state.toys[toy]}
        words |= {"other": other} if kind == "gives" else {"spot": random_.choice(SPOTS)}
    else:
        most = min(room, 6) if kind == "finds" else have
        words |= {"goods": goods, "number": NUMBERS[random_.randint(1, most)]}
        words |= {"other": other} if kind == "hands" else {}
    return Event(kind, words)


def story(random_: random.Random, language: str) -> Story:
    """A new story in a language ("en" or "zh"), told in one of many ways."""
    return tell(random_, *plot(random_), language)


def tell(
    random_: random.Random,
    people: Sequence[Word],
    place: Word,
    events: Sequence[Event],
    language: str,
) -> Story:
    """The story of given events: sentences with varied wording, and all its questions."""
    names = [getattr(person, language) for person in people]
    joined = " and ".join([", ".join(names[:-1]), names[-1]])
    joined = joined if language == "en" else "、".join(names[:-1]) + "和" + names[-1]
    time = random_.choice(TIMES)
    lines = [say(language, "opening", random_, {"time": time, "place": place}, names=joined)]
    state, last = State(place=dict.fromkeys(people, place)), None
    for event in events:
        person = event.words["person"]
        again = person is last and random_.random() < 0.6
        lines.append(say(language, event.kind, random_, event.words, again))
        state.apply(event)
        last = None if event.kind in ("gives", "hands") else person
    if random_.random() < 0.5:
        lines.append(getattr(random_.choice(ENDINGS), language))
    text = (" " if language == "en" else "").join(lines)
    return Story(language, text, _questions(random_, language, state, events))


def _questions(
    random_: random.Random, language: str, state: State, events: Sequence[Event]
) -> list[Question]:
    made: list[Question] = []

    def ask(kind: str, role: str, value: Word, among: Sequence[Word], **words: Word) -> None:
        answer = say(language, f"{kind}!", random_, {role: value, **words})
        question = say(language, f"{kind}?", random_, words)
        options = tuple(dict.fromkeys(getattr(word, language) for word in among))
        made.append(Question(kind, question, answer, getattr(value, language), options))

    people = [e.words[role] for e in events for role in ("person", "other") if role in e.words]
    for toy, colour in state.toys.items():
        ask("colour", "colour", colour, [*state.toys.values()], toy=toy)
        if toy in state.owner:
            ask("who", "person", state.owner[toy], people, toy=toy, colour=colour)
        else:
            ask("spot", "spot", state.spot[toy], [*state.spot.values()], toy=toy, colour=colour)
    visited = [e.words["place"] for e in events if e.kind == "goes"] + [*state.place.values()]
    for person, place in state.place.items():
        ask("where", "place", place, visited, person=person)
    numbers = [e.words["number"] for e in events if "number" in e.words]
    for (person, goods), count in state.goods.items():
        number = NUMBERS[count]
        ask("count", "number", number, [*numbers, number], person=person, goods=goods)
    for person in state.place:
        done = [act.words["act"] for act in state.acts if act.words["person"] is person]
        for act, following in itertools.pairwise(done):
            if done.count(act) == 1:
                ask("next", "next", following, done, person=person, act=act)
    return made
