"""The few things that the little world knows besides its stories: facts, sums and translations."""

import random

from qwen2_book.world.words import COLOURS, GOODS, NUMBERS, TOYS

Pair = tuple[str, str]  # question, answer

FACTS: dict[str, list[Pair]] = {
    "en": [
        ("How many days are there in a week?", "There are seven days in a week."),
        ("How many months are there in a year?", "There are twelve months in a year."),
        ("How many seasons are there in a year?", "There are four seasons in a year."),
        ("What colour is the sky?", "The sky is blue."),
        ("What colour is grass?", "Grass is green."),
        ("What colour is snow?", "Snow is white."),
        ("Which day comes after Monday?", "Tuesday comes after Monday."),
        ("Which day comes after Saturday?", "Sunday comes after Saturday."),
        ("What is the capital of France?", "The capital of France is Paris."),
        ("What is the capital of China?", "The capital of China is Beijing."),
        ("What is the capital of Japan?", "The capital of Japan is Tokyo."),
        ("What is the capital of Germany?", "The capital of Germany is Berlin."),
        ("What is the capital of England?", "The capital of England is London."),
        ("What is the opposite of hot?", "The opposite of hot is cold."),
        ("What is the opposite of big?", "The opposite of big is small."),
        ("What is the opposite of day?", "The opposite of day is night."),
        ("How many legs does a dog have?", "A dog has four legs."),
        ("How many legs does a bird have?", "A bird has two legs."),
        ("What do bees make?", "Bees make honey."),
        ("Where do fish live?", "Fish live in water."),
        ("When does the sun rise?", "The sun rises in the morning."),
        ("What do cows eat?", "Cows eat grass."),
    ],
    "zh": [
        ("一个星期有几天？", "一个星期有七天。"),
        ("一年有几个月？", "一年有十二个月。"),
        ("一年有几个季节？", "一年有四个季节。"),
        ("天空是什么颜色的？", "天空是蓝色的。"),
        ("草是什么颜色的？", "草是绿色的。"),
        ("雪是什么颜色的？", "雪是白色的。"),
        ("星期一后面是星期几？", "星期一后面是星期二。"),
        ("星期六后面是星期几？", "星期六后面是星期天。"),
        ("法国的首都是哪里？", "法国的首都是巴黎。"),
        ("中国的首都是哪里？", "中国的首都是北京。"),
        ("日本的首都是哪里？", "日本的首都是东京。"),
        ("德国的首都是哪里？", "德国的首都是柏林。"),
        ("英国的首都是哪里？", "英国的首都是伦敦。"),
        ("热的反义词是什么？", "热的反义词是冷。"),
        ("大的反义词是什么？", "大的反义词是小。"),
        ("白天的反义词是什么？", "白天的反义词是黑夜。"),
        ("狗有几条腿？", "狗有四条腿。"),
        ("小鸟有几条腿？", "小鸟有两条腿。"),
        ("蜜蜂会做什么？", "蜜蜂会酿蜜。"),
        ("鱼住在哪里？", "鱼住在水里。"),
        ("太阳什么时候升起？", "太阳早上升起。"),
        ("牛吃什么？", "牛吃草。"),
    ],
}


def fact(random_: random.Random, language: str) -> Pair:
    """A question about the larger world and its answer: a fact, a sum, or a translation."""
    kind = random_.random()
    if kind < 0.5:
        return random_.choice(FACTS[language])
    if kind < 0.75:
        return _sum(random_, language)
    word = random_.choice(TOYS + GOODS + COLOURS)
    if language == "en":
        return f"What is “{word.en}” in Chinese?", f"It is “{word.zh}”."
    return f"“{word.zh}”用英文怎么说？", f"是“{word.en}”。"


def _sum(random_: random.Random, language: str) -> Pair:
    first = random_.randint(1, 9)
    second = random_.randint(1, min(9, 12 - first))
    terms = (first, second, first + second)
    if language == "en":
        one, two, both = (NUMBERS[n].en for n in terms)
        return f"What is {one} plus {two}?", f"{one.capitalize()} plus {two} is {both}."
    one, two, both = ("二" if n == 2 else NUMBERS[n].zh for n in terms)
    return f"{one}加{two}等于几？", f"{one}加{two}等于{both}。"
