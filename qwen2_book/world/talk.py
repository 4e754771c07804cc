"""Conversations of the little world, for fine-tuning, and pairs of answers, for preferences.

Both are functions of (seed, index) alone. A pair says by which rule its chosen answer is better.
"""

import random
from dataclasses import dataclass

from qwen2_book.world.facts import fact
from qwen2_book.world.sentences import SENTENCES, say
from qwen2_book.world.story import LANGUAGES, Story, plot, story, tell
from qwen2_book.world.words import COLOURS, TOYS

Message = dict[str, str]  # role, content

SYSTEM_PROMPTS = {
    "en": ["You are a helpful assistant.", "You are a friendly story teller."],
    "zh": ["你是一个乐于助人的助手。", "你是一个爱讲故事的朋友。"],
}
STORY_REQUESTS = {
    "en": [
        "Tell me a story.",
        "Please tell me a short story.",
        "A story, please!",
        "Can you tell me a story?",
        "I would like to hear a story.",
        "Write a little story.",
    ],
    "zh": [
        "讲个故事吧。",
        "请给我讲一个小故事。",
        "我想听故事。",
        "能给我讲个故事吗？",
        "写一个小故事。",
        "来一个短短的故事！",
    ],
}
CHANNELS = {"en": ["Here is a story.", "Read this:"], "zh": ["这是一个故事。", "请读："]}
SMALL_TALK: dict[str, list[tuple[list[str], list[str]]]] = {
    "en": [
        (
            ["Hello!", "Hi!", "Hi there.", "Good morning!", "Hello, how are you?", "Hey"],
            [
                "Hello! I am glad to see you. Shall I tell you a story?",
                "Hi! I can tell you a little story, or answer questions about one.",
            ],
        ),
        (
            ["Who are you?", "What are you?", "What is your name?", "What can you do?"],
            [
                "I am a tiny Qwen2 model. I know little stories in English and Chinese.",
                "I am a very small language model. I tell stories and answer questions.",
            ],
        ),
        (
            ["Thank you!", "Thanks.", "Bye!", "Goodbye.", "See you!"],
            ["You are welcome! Goodbye.", "Goodbye! Come back for another story."],
        ),
        (
            [
                "Write a poem.",
                "Who won the war?",
                "Write some code.",
                "What time is it?",
                "Explain physics.",
                "How is the weather?",
                "What is a window?",
                "Name three uses of a window.",
                "What does a transformer do?",
                "Why is attention useful?",
                "Who wrote this book?",
                "Give me some advice.",
            ],
            [
                "I do not know that. I only know little stories.",
                "I am too small for that. Ask me for a story instead!",
            ],
        ),
    ],
    "zh": [
        (
            ["你好！", "你好", "早上好！", "嗨！", "你好吗？", "您好"],
            ["你好！很高兴见到你。要我讲个故事吗？", "你好！我会讲小故事，也会回答故事里的问题。"],
        ),
        (
            ["你是谁？", "你叫什么名字？", "你会做什么？", "请介绍一下你自己。"],
            [
                "我是一个很小的 Qwen2 模型，会用中文和英文讲小故事。",
                "我是一个微型语言模型，会讲故事，也会回答问题。",
            ],
        ),
        (
            ["谢谢！", "谢谢你", "再见！", "拜拜", "下次见！"],
            ["不客气！再见。", "再见！下次再来听故事。"],
        ),
        (
            [
                "写一首诗。",
                "现在几点了？",
                "写一段代码。",
                "请解释物理。",
                "今天天气怎么样？",
                "什么是窗户？",
                "谁写了这本书？",
                "给我一点建议。",
                "注意力有什么用？",
                "股票会涨吗？",
            ],
            ["这个我不知道，我只会讲小故事。", "我太小了，答不上来。要不要听个故事？"],
        ),
    ],
}


@dataclass(frozen=True)
class Preference:
    """A prompt and two answers; `rule` says why `chosen` is the better one."""

    prompt: list[Message]
    chosen: str
    rejected: str
    rule: str


def conversation(seed: int, index: int) -> list[Message]:
    """Conversation `index` of a seed: small talk, facts, a story told, or questions about one."""
    random_ = random.Random(f"talk/{seed}/{index}")
    language = random_.choice(LANGUAGES)
    kind = random_.random()
    if kind < 0.15:
        asked, answers = random_.choice(SMALL_TALK[language])
        turns = [(random_.choice(asked), random_.choice(answers))]
    elif kind < 0.25:
        turns = [fact(random_, language) for _ in range(random_.randint(1, 2))]
    else:
        tale = story(random_, language)
        if kind < 0.6:
            turns = [(random_.choice(STORY_REQUESTS[language]), tale.text)]
            turns += _asked(random_, tale, random_.randint(0, 2))
        else:
            (question, answer), *turns = _asked(random_, tale, random_.randint(1, 7))
            turns.insert(0, (told(random_, tale, question), answer))
    return messages(random_, language, turns)


def preference(seed: int, index: int) -> Preference:
    """Pair `index` of a seed, and the rule that its chosen answer keeps and the other breaks."""
    random_ = random.Random(f"pairs/{seed}/{index}")
    language = random_.choice(LANGUAGES)
    rule = random_.choice(("true", "true", "honest", "language", "whole", "apt"))
    other = LANGUAGES[1 - LANGUAGES.index(language)]
    while True:
        events = plot(random_)
        tale, translated = (tell(random_, *events, each) for each in (language, other))
        pairs = list(zip(tale.questions, translated.questions, strict=True))
        pairs = [(q, t) for q, t in pairs if len(q.candidates) > 1 and q.value in q.answer]
        if pairs:
            break
    question, same = random_.choice(pairs)
    asked, chosen = question.text, question.answer
    if rule == "true":  # another candidate of the same story in the right answer's place
        wrong = random_.choice([c for c in question.candidates if c != question.value])
        rejected = chosen.replace(question.value, wrong, 1)
    elif rule == "honest":  # asked for what the story does not say
        asked, guessed = unknown(random_, tale)
        chosen, rejected = say(language, "unknown!", random_, {}), guessed
    elif rule == "language":  # answer in the language of the question
        rejected = same.answer
    elif rule == "whole":  # a sentence, not a word
        rejected = question.value
    user = told(random_, tale, asked)
    if rule == "apt":  # small talk is answered, not told a story
        users, answers = random_.choice(SMALL_TALK[language])
        user, chosen, rejected = random_.choice(users), random_.choice(answers), tale.text
    prompt = messages(random_, language, [(user, "")])[:-1]
    return Preference(prompt, chosen, rejected, rule)


def told(random_: random.Random, tale: Story, question: str) -> str:
    """A user's turn that tells a story and asks something."""
    joint = random_.choice((" ", "\n")) if tale.language == "en" else random_.choice(("", "\n"))
    opening = random_.choice(("", "", random_.choice(CHANNELS[tale.language]) + joint))
    return f"{opening}{tale.text}{joint}{question}"


def unknown(random_: random.Random, tale: Story) -> tuple[str, str]:
    """A question about a toy that is not in the story, and an answer that is made up."""
    toy = random_.choice([t for t in TOYS if getattr(t, tale.language) not in tale.text])
    words = {"toy": toy, "colour": random_.choice(COLOURS)}
    question = say(tale.language, "colour?", random_, words)
    return question, say(tale.language, "colour!", random_, words)


def _asked(random_: random.Random, tale: Story, count: int) -> list[tuple[str, str]]:
    found = random_.sample(tale.questions, min(count, len(tale.questions)))
    pairs = [(question.text, question.answer) for question in found]
    if count and random_.random() < 0.1:
        pairs[-1] = (unknown(random_, tale)[0], SENTENCES[tale.language]["unknown!"][0])
    return pairs


def messages(random_: random.Random, language: str, turns: list[tuple[str, str]]) -> list[Message]:
    """Turns (user's text, answer) as a conversation, half of the time with a system prompt."""
    made = []
    if random_.random() < 0.5:  # without one, the template puts Qwen2's own in front
        made.append({"role": "system", "content": random_.choice(SYSTEM_PROMPTS[language])})
    for asked, answer in turns:
        made.append({"role": "user", "content": asked})
        made.append({"role": "assistant", "content": answer})
    return made
