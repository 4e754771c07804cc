"""The little world: possible events, answers that follow, the same tale in two languages."""

import random
import re
from collections import Counter
from itertools import pairwise

import pytest

from qwen2_book.world.documents import document, documents, tokenizer_texts
from qwen2_book.world.facts import FACTS, fact
from qwen2_book.world.lessons import KINDS, exercise, lesson, lesson_plot, talked
from qwen2_book.world.score import majority, questions, read_story
from qwen2_book.world.sentences import SENTENCES, say
from qwen2_book.world.story import LANGUAGES, Event, State, plot, story, tell
from qwen2_book.world.talk import conversation, preference
from qwen2_book.world.words import COLOURS, GOODS, NUMBERS, PEOPLE, PLACES, SPOTS, TOYS


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_story_can_be_read_back(language):
    """An independent reader, working from the text alone, comes to the same answers."""
    random_, asked = random.Random(5), Counter()
    for _ in range(400):
        people, place, events = plot(random_)
        tale = tell(random_, people, place, events, language)
        reading = read_story(tale.text, language)
        assert reading.faults == [], tale.text
        assert reading.sentences >= len(events) + 1
        answers = answers_from(reading.state, language)
        for question in tale.questions:
            asked[question.kind] += 1
            assert question.value in question.candidates
            if question.kind != "next":
                assert question.answer in answers
    assert set(asked) == {"colour", "who", "spot", "where", "count", "next"}


def answers_from(state, language):
    """Every statement that holds in a state, said by the one wording of its kind."""
    random_, told = random.Random(0), set()

    def add(kind, **words):
        told.add(say(language, kind, random_, words))

    for toy, colour in state.toys.items():
        add("colour!", toy=toy, colour=colour)
        if toy in state.owner:
            add("who!", person=state.owner[toy], toy=toy, colour=colour)
        else:
            add("spot!", spot=state.spot[toy], toy=toy, colour=colour)
    for person, place in state.place.items():
        add("where!", person=person, place=place)
    for (person, goods), count in state.goods.items():
        add("count!", person=person, goods=goods, number=NUMBERS[count])
    return told


@pytest.mark.parametrize(
    "text, fault",
    [
        ("One day, Tom and Anna met in the park. Tom gave Anna the red ball.", "does not have"),
        ("One day, Tom and Anna met in the park. Tom ate two apples.", "would have -2"),
        ("One day, Tom and Anna met in the park. Ben took a nap.", "Ben is not in the story"),
        ("One day, Tom and Anna met in the park. Tom took a nap. She ran to the zoo.", "not under"),
        ("有一天，小明和小红在公园。小明有一个红色的球。小明把蓝色的球给了小红。", "does not have"),
        ("有一天，小明和小红在公园。小明小明。", "not understood"),
        ("One day, Tom and Tom met in the park.", "comes twice"),
        ("One day, Tom and Bob met in the park.", "not understood"),
        ("One day, Tom and Anna met in the park. Tom ran to the park.", "there already"),
        ("有一天，小明和小红在公园。小明有一个红色的球。小明把红色的球给了小明。", "to oneself"),
    ],
)
def test_what_is_wrong_with_a_story_is_said(text, fault):
    reading = read_story(text, "en" if text.isascii() else "zh")
    assert len(reading.faults) == 1 and fault in reading.faults[0]


def test_the_baseline_is_a_fair_guess():
    asked = questions(1, 600)
    assert {a.question.kind for a in asked} == {"colour", "who", "spot", "where", "count", "next"}
    right = sum(majority(a) == a.question.value for a in asked) / len(asked)
    assert 0.35 < right < 0.75
    assert questions(1, 5) == questions(1, 5) != questions(2, 5)


def test_a_worked_example():
    tom, anna = PEOPLE[0], next(p for p in PEOPLE if p.en == "Anna")
    ball, red, apple = TOYS[0], COLOURS[0], GOODS[0]
    events = [
        Event("has", {"person": tom, "colour": red, "toy": ball}),
        Event("gives", {"person": tom, "colour": red, "toy": ball, "other": anna}),
        Event("finds", {"person": anna, "number": NUMBERS[3], "goods": apple}),
        Event("hands", {"person": anna, "number": NUMBERS[3], "goods": apple, "other": tom}),
        Event("eats", {"person": tom, "number": NUMBERS[1], "goods": apple}),
        Event("puts", {"person": anna, "colour": red, "toy": ball, "spot": SPOTS[0]}),
        Event("goes", {"person": anna, "place": PLACES[2]}),
    ]
    answers = {}
    for language in LANGUAGES:
        tale = tell(random.Random(0), [tom, anna], PLACES[0], events, language)
        answers[language] = [q.answer for q in tale.questions]
    assert answers["en"] == [
        "The ball is red.",
        "The red ball is on the table.",
        "Tom is in the garden.",
        "Anna is in the park.",
        "Anna has no apples left.",
        "Tom has two apples.",
    ]
    assert answers["zh"] == [
        "球是红色的。",
        "红色的球在桌子上。",
        "小明在花园。",
        "小红在公园。",
        "小红没有苹果了。",
        "小明有两个苹果。",
    ]


def test_what_cannot_happen_is_refused():
    tom, anna = PEOPLE[:2]
    state = State(place={tom: PLACES[0], anna: PLACES[0]})
    with pytest.raises(ValueError, match="Tom does not have a red ball"):
        state.apply(
            Event("puts", {"person": tom, "toy": TOYS[0], "colour": COLOURS[0], "spot": SPOTS[0]})
        )
    with pytest.raises(ValueError, match="would have -1"):
        state.apply(Event("eats", {"person": tom, "number": NUMBERS[1], "goods": GOODS[0]}))


def test_every_plot_is_possible_and_every_wording_occurs():
    random_, seen = random.Random(1), set()
    for _ in range(2000):
        people, place, events = plot(random_)
        state = State(place=dict.fromkeys(people, place))
        for event in events:
            state.apply(event)
            seen.add(event.kind)
        assert all(0 <= count < len(NUMBERS) for count in state.goods.values())
    assert seen == {k for k in SENTENCES["en"] if k[-1] not in "?!"} - {"opening"}


def test_both_languages_have_the_same_kinds():
    assert SENTENCES["en"].keys() == SENTENCES["zh"].keys()
    assert len(FACTS["en"]) == len(FACTS["zh"]) == 22 and len(PEOPLE) == 24  # as the data card says
    for words in (PEOPLE, COLOURS, TOYS, GOODS, PLACES, SPOTS, NUMBERS):
        assert len({w.en for w in words}) == len({w.zh for w in words}) == len(words)


def test_languages_are_not_mixed():
    random_ = random.Random(2)
    for _ in range(200):
        assert story(random_, "en").text.isascii()
        assert not re.search(r"[A-Za-z]", story(random_, "zh").text)
    for language in LANGUAGES:
        for _ in range(50):
            question, answer = fact(random_, language)
            assert question and answer


def test_the_stream_is_a_function_of_seed_and_number():
    stream = documents(7, start=3)
    assert [next(stream), next(stream)] == [document(7, 3), document(7, 4)]
    assert document(7, 3) != document(8, 3)


def test_documents_do_not_repeat():
    found = Counter(document(0, k) for k in range(3000))
    assert sum(count for count in found.values() if count > 1) < 30


def test_conversations_are_conversations():
    for k in range(300):
        roles = [m["role"] for m in conversation(3, k)]
        if roles[0] == "system":
            roles = roles[1:]
        assert roles == ["user", "assistant"] * (len(roles) // 2) and roles
        assert all(m["content"] for m in conversation(3, k))


@pytest.mark.parametrize("changes", [False, True])
@pytest.mark.parametrize("asked", [False, True])
def test_the_answers_of_a_lesson_are_right(changes, asked):
    """A reader that knows only the told sentences comes to what each line states."""
    found = Counter()
    for index in range(40):
        (told_, learned), *pieces = lesson(6, index, changes, asked)
        assert not learned and any(learned for _, learned in pieces)
        language = "en" if told_.isascii() else "zh"
        state = state_of(told_, language)
        answers = answers_from(state, language) | what_came_next(state, language)
        for line in "".join(text for text, _ in pieces).strip().split("\n"):
            if line.endswith(("?", "？")):
                assert asked or re.search("after|以后|Who|谁", line)
                continue
            said = line.removeprefix("Answer: ").removeprefix("答：")
            for answer in re.findall(r"[^.。]+[.。]", said):
                assert answer.strip() in answers, (told_, answer)
                found[language] += 1
    assert min(found.values()) > 25


def state_of(told_, language):
    """Read sentences into a state; where they have no opening, one is put before them."""
    if read_story(told_, language).faults:
        names = [getattr(p, language) for p in PEOPLE if getattr(p, language) in told_]
        opening = f"One day, {' and '.join(names)} were in the park. "
        told_ = (opening if language == "en" else f"有一天，{'、'.join(names)}在公园。") + told_
    reading = read_story(told_, language)
    faults = [fault for fault in reading.faults if not fault.startswith("there already")]
    assert faults == [], told_  # a lesson may send somebody where they are
    return reading.state


def what_came_next(state, language):
    random_, told_ = random.Random(0), set()
    for person in {act.words["person"] for act in state.acts}:
        done = [act.words["act"] for act in state.acts if act.words["person"] is person]
        for act, following in pairwise(done):
            words = {"person": person, "act": act, "next": following}
            told_.add(say(language, "next!", random_, words))
    return told_


def test_without_changes_each_person_has_one_thing():
    random_ = random.Random(8)
    for kind in KINDS:
        for _ in range(50):
            people, _, events = lesson_plot(random_, kind, changes=False)
            per_person = Counter(event.words["person"] for event in events)
            expected = 2 if kind in ("spot", "next") else 1  # had and put down; did and did next
            assert set(per_person.values()) == {expected}
            assert 2 <= len(people) <= 5 and set(per_person) <= set(people)


def test_an_exercise_asks_everything_and_learns_the_answers():
    for index in range(50):
        (told_, _), *pieces = exercise(6, index)
        language = "en" if told_.isascii() else "zh"
        state = state_of(told_, language)
        learned = {text for text, learned in pieces if learned}
        stated = learned & answers_from(state, language)
        assert learned - stated <= what_came_next(state, language)
        assert len(stated) == 2 * len(state.toys) + len(state.place) + len(state.goods)


def test_lessons_are_functions_of_seed_and_number():
    for make in (exercise, talked, lambda s, k: lesson(s, k, changes=True, asked=True)):
        assert make(7, 3) == make(7, 3) != make(7, 4)
        assert make(7, 3) != make(8, 3)


def test_no_lesson_tells_a_story_of_the_evaluation():
    evaluated = {a.story.text for seed in range(1_000_003, 1_000_008) for a in questions(seed, 240)}
    assert len(evaluated) > 1190
    told_ = {exercise(0, k)[0][0] for k in range(600)}
    told_ |= {lesson(0, k, changes=True, asked=True)[0][0] for k in range(600)}
    assert len(told_) > 1190 and not told_ & evaluated
    turns = [talked(0, k) for k in range(200)]
    users = {m["content"] for turn in turns for m in turn if m["role"] == "user"}
    assert not any(text in user for user in users if len(user) > 100 for text in evaluated)


def test_lessons_asked_of_a_user_are_conversations():
    for k in range(100):
        roles = [m["role"] for m in talked(3, k)]
        roles = roles[roles[0] == "system" :]
        assert roles == ["user", "assistant"] * (len(roles) // 2) and roles


def test_each_rule_says_why():
    rules = Counter()
    for k in range(400):
        pair = preference(4, k)
        rules[pair.rule] += 1
        assert pair.chosen != pair.rejected and pair.prompt[-1]["role"] == "user"
        if pair.rule == "language":
            assert pair.chosen.isascii() != pair.rejected.isascii()
        if pair.rule == "whole":
            assert pair.rejected in pair.chosen and len(pair.rejected) < len(pair.chosen)
        if pair.rule == "apt":
            assert read_story(pair.rejected, "en" if pair.rejected.isascii() else "zh").events
            assert len(pair.prompt[-1]["content"]) < 40
        if pair.rule == "honest":
            assert pair.chosen in ("The story does not say.", "故事里没有说。")
        if pair.rule == "true":
            assert pair.chosen.isascii() == pair.rejected.isascii()
    assert set(rules) == {"true", "honest", "language", "whole", "apt"}


def test_chinese_words_stay_tokens(trained_on_the_world):
    tokenizer = trained_on_the_world
    whole = [w for w in (*PEOPLE, *TOYS, *PLACES) if len(tokenizer.encode(w.zh)) == 1]
    assert len(whole) > 0.9 * len((*PEOPLE, *TOYS, *PLACES))
    name = tokenizer.encode("小红")
    assert len(name) == 1
    for text in ("小红有一个红色的球。", "谁给了小红？", "小明和小红在花园。"):
        assert name[0] in tokenizer.encode(text)


@pytest.fixture(scope="module")
def trained_on_the_world():
    from qwen2_book import Tokenizer

    return Tokenizer.train(tokenizer_texts(), 2048)
