"""A little world in two languages, made by a seed: who has what, who is where, how many.

Every story comes with questions whose answers are computed, so a model's answers can be marked.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

Turn = tuple[str, str]  # role, text

NAMES = {
    "en": ["Tom", "Anna", "Ben", "Lily", "Max", "Emma", "Sam", "Mia", "Leo", "Zoe", "Jack", "Ruby"],
    "zh": [
        "小明",
        "小红",
        "小刚",
        "小丽",
        "小华",
        "小美",
        "大伟",
        "阿强",
        "乐乐",
        "思思",
        "佳佳",
        "天天",
    ],
}
COLOURS = {
    "en": ["red", "blue", "green", "yellow", "white", "black", "pink", "brown"],
    "zh": ["红", "蓝", "绿", "黄", "白", "黑", "粉", "棕"],
}
THINGS = {
    "en": [
        "ball",
        "cup",
        "book",
        "hat",
        "kite",
        "box",
        "pen",
        "bag",
        "bell",
        "coat",
        "lamp",
        "key",
    ],
    "zh": [
        "球",
        "杯子",
        "书",
        "帽子",
        "风筝",
        "盒子",
        "笔",
        "书包",
        "铃铛",
        "外套",
        "台灯",
        "钥匙",
    ],
}
PLACES = {
    "en": ["garden", "kitchen", "park", "school", "library", "shop", "forest", "zoo", "market"],
    "zh": ["花园", "厨房", "公园", "学校", "图书馆", "商店", "树林", "动物园", "市场"],
}
FRUITS = {
    "en": ["apples", "pears", "plums", "eggs", "nuts", "flowers", "shells", "stones"],
    "zh": ["苹果", "梨", "李子", "鸡蛋", "坚果", "花", "贝壳", "石头"],
}
MEASURES = {  # 量词, where it is not 个
    "书": "本",
    "帽子": "顶",
    "风筝": "只",
    "笔": "支",
    "外套": "件",
    "台灯": "盏",
    "钥匙": "把",
    "坚果": "颗",
    "花": "朵",
    "贝壳": "枚",
    "石头": "块",
}
NUMBERS = {
    "en": ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"],
    "zh": ["一", "两", "三", "四", "五", "六", "七", "八", "九", "十"],
}


@dataclass(frozen=True)
class Story:
    """Sentences, and questions with their answers; `kind` names what a question asks for."""

    language: str
    text: str
    questions: list[tuple[str, str, str]]  # kind, question, answer


def story(random_: random.Random, language: str) -> Story:
    """Two or three people, what each has and where each is; perhaps a gift, perhaps a count."""
    people = random_.sample(NAMES[language], random_.choice((2, 2, 3)))
    colours = random_.sample(COLOURS[language], len(people))
    things = random_.sample(THINGS[language], len(people))
    places = random_.sample(PLACES[language], len(people))
    english = language == "en"
    say: Callable[..., str] = _english if english else _chinese
    lines, has, where = [], dict(zip(people, zip(colours, things, strict=True), strict=True)), {}
    for person in people:
        lines.append(say("has", person, *has[person]))
    movers = random_.sample(people, random_.randint(1, len(people)))
    for person, place in zip(movers, places, strict=False):
        where[person] = place
        lines.append(say("goes", person, place))
    owners = {has[person]: person for person in people}
    if random_.random() < 0.4:
        giver, taker = random_.sample(people, 2)
        lines.append(say("gives", giver, taker, *has[giver]))
        owners[has[giver]] = taker
    count = None
    if random_.random() < 0.3:
        number = NUMBERS[language][random_.randrange(1, 9)]
        count = (random_.choice(people), number, random_.choice(FRUITS[language]))
        lines.append(say("finds", *count))
    questions = []
    for (colour, thing), owner in owners.items():
        questions.append(("who", say("who?", colour, thing), say("owns", owner, colour, thing)))
        questions.append(("colour", say("colour?", thing), say("colour", thing, colour)))
    for person, place in where.items():
        questions.append(("where", say("where?", person), say("where", person, place)))
    if count:
        questions.append(("count", say("count?", count[0], count[2]), say("finds", *count)))
    return Story(language, ("" if not english else " ").join(lines), questions)


def _english(kind: str, *words: str) -> str:
    forms = {
        "has": "{0} has a {1} {2}.",
        "owns": "{0} has the {1} {2}.",
        "goes": "{0} goes to the {1}.",
        "gives": "{0} gives the {2} {3} to {1}.",
        "finds": "{0} finds {1} {2}.",
        "who?": "Who has the {0} {1}?",
        "colour?": "What colour is the {0}?",
        "colour": "The {0} is {1}.",
        "where?": "Where is {0}?",
        "where": "{0} is in the {1}.",
        "count?": "How many {1} does {0} find?",
    }
    return forms[kind].format(*words)


def _chinese(kind: str, *words: str) -> str:
    forms = {
        "has": "{0}有一{3}{1}色的{2}。",
        "owns": "{0}有{1}色的{2}。",
        "goes": "{0}去了{1}。",
        "gives": "{0}把{2}色的{3}给了{1}。",
        "finds": "{0}找到了{1}{3}{2}。",
        "who?": "谁有{0}色的{1}？",
        "colour?": "{0}是什么颜色的？",
        "colour": "{0}是{1}色的。",
        "where?": "{0}在哪里？",
        "where": "{0}在{1}。",
        "count?": "{0}找到了几{2}{1}？",
    }
    return forms[kind].format(*words, MEASURES.get(words[-1], "个"))


TALK = {
    "en": [
        (["Hello!", "Hi!", "Hi there.", "Good morning!", "Hello, how are you?"],
         ["Hello! I am glad to see you. Shall I tell you a story?",
          "Hi! I can tell you a little story, or answer questions about one."]),
        (["Who are you?", "What are you?", "What is your name?", "What can you do?"],
         ["I am a tiny Qwen2 model. I know little stories in English and Chinese.",
          "I am a very small language model, trained on stories about Tom and his friends."]),
        (["Thank you!", "Thanks.", "Bye!", "Goodbye."], ["You are welcome!", "Goodbye, see you soon!"]),
        (["What is the capital of France?", "Write a poem.", "What is two plus two?", "Who won the war?",
          "Write some code.", "What time is it?", "Explain physics.", "Name three uses of a window.",
          "How is the weather?", "List some numbers.", "What is a window?"],
         ["I do not know that. I only know little stories.",
          "I am too small for that. Ask me for a story instead!"]),
    ],
    "zh": [
        (["你好！", "你好", "早上好！", "嗨！", "你好吗？"],
         ["你好！很高兴见到你。要我讲个故事吗？", "你好！我会讲小故事，也会回答故事里的问题。"]),
        (["你是谁？", "你叫什么名字？", "你会做什么？", "请介绍一下你自己。"],
         ["我是一个很小的 Qwen2 模型，会用中文和英文讲小故事。", "我是一个微型语言模型，只学过小明和朋友们的故事。"]),
        (["谢谢！", "谢谢你", "再见！", "拜拜"], ["不客气！", "再见，下次再来听故事！"]),
        (["法国的首都是哪里？", "那么日本的首都呢？", "写一首诗。", "一加一等于几？", "现在几点了？", "写一段代码。",
          "请解释物理。", "今天天气怎么样？", "什么是窗户？", "请用中文回答一句话。"],
         ["这个我不知道，我只会讲小故事。", "我太小了，答不上来。要不要听个故事？"]),
    ],
}  # fmt: skip
ASK = {
    "en": [
        "Tell me a story.",
        "Please tell me a short story.",
        "A story, please!",
        "Tell me another one.",
    ],
    "zh": ["讲个故事吧。", "请给我讲一个小故事。", "我想听故事。", "再讲一个。"],
}
START = {"en": "One day, {}", "zh": "有一天，{}"}


def conversation(random_: random.Random, language: str) -> list[Turn]:
    """A few turns: small talk, a story told, or questions about a story that the user tells."""
    kind = random_.random()
    if kind < 0.12:
        questions, answers = random_.choice(TALK[language])
        return [("user", random_.choice(questions)), ("assistant", random_.choice(answers))]
    tale = story(random_, language)
    asked = random_.sample(tale.questions, min(len(tale.questions), random_.randint(1, 3)))
    if kind < 0.3:
        turns = [("user", random_.choice(ASK[language]))]
        turns.append(("assistant", START[language].format(tale.text)))
        asked = asked[:2]
    else:
        _, question, answer = asked.pop(0)
        between = " " if language == "en" else ""
        turns = [("user", f"{tale.text}{between}{question}"), ("assistant", answer)]
    for _, question, answer in asked:
        turns += [("user", question), ("assistant", answer)]
    return turns


def conversations(seed: int, count: int) -> list[list[Turn]]:
    """The first `count` conversations of a seed, half of them in each language."""
    random_ = random.Random(seed)
    return [conversation(random_, random_.choice(("en", "zh"))) for _ in range(count)]


def repetitions(seed: int, count: int) -> list[str]:
    """Lines of random words, each said two or three times over: all they teach is to look back.

    A model that begins with them soon grows the heads that continue a repeated pattern; answering
    questions about a story needs the same heads.
    """
    random_ = random.Random(seed)
    lines = []
    for _ in range(count):
        language = random_.choice(("en", "zh"))
        groups = (NAMES, COLOURS, THINGS, PLACES, FRUITS, NUMBERS)
        words = [word for group in groups for word in group[language]]
        between = " " if language == "en" else ""
        line = between.join(random_.sample(words, random_.randint(4, 14)))
        lines.append(between.join([line] * random_.choice((2, 3))))
    return lines


def words_of_the_world() -> list[str]:
    """What the tokenizer is trained on: English sentences, Chinese cut into words.

    Chinese has no spaces, so on running text byte-pair encoding would learn whole clauses such as
    小明有一个 as one token, and a name would hardly ever be the same token twice.
    """
    lists = [NAMES, COLOURS, THINGS, PLACES, FRUITS, NUMBERS]
    chinese = [word for group in lists for word in group["zh"]] + [*set(MEASURES.values())]
    chinese += [
        "有一",
        "有",
        "个",
        "色的",
        "色",
        "去了",
        "把",
        "给了",
        "找到了",
        "几",
        "谁",
        "有一天",
    ]
    chinese += ["是什么", "颜色的", "在", "哪里", "是", "的", "，", "。", "？", "！"]
    talk = [text for pairs in TALK.values() for pair in pairs for texts in pair for text in texts]
    asked = [text for texts in ASK.values() for text in texts]
    english = [text for turns in conversations(1, 2000) for _, text in turns if text.isascii()]
    system = ["You are a helpful assistant.\nsystem\nuser\nassistant\n"]
    return ["\n".join(sorted(chinese))] * 300 + english + (talk + asked) * 20 + system * 300
