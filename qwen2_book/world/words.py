"""The words of the little world, in English and Chinese side by side."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """One thing of the world: its English, its Chinese; for things also a plural and a 量词."""

    en: str
    zh: str
    plural: str = ""
    measure: str = "个"
    pronoun: str = ""

    def __str__(self) -> str:
        return self.en


def _people(names: str, pronoun: str) -> list[Word]:
    pairs = (pair.split("/") for pair in names.split())
    return [Word(en, zh, pronoun=pronoun) for en, zh in pairs]


PEOPLE = _people(
    "Tom/小明 Ben/小刚 Max/大伟 Sam/阿强 Leo/乐乐 Jack/天天 Peter/小龙 Oliver/小虎 Noah/小北 "
    "Daniel/大山 Oscar/小军 Henry/阿福",
    "he",
) + _people(
    "Anna/小红 Lily/小丽 Emma/小美 Mia/思思 Zoe/佳佳 Ruby/小兰 Alice/小雨 Nora/小雪 Ella/月月 "
    "Clara/小云 Sophie/丁丁 Grace/阿梅",
    "she",
)
COLOURS = [
    Word(*pair.split("/"))
    for pair in "red/红 blue/蓝 green/绿 yellow/黄 white/白 black/黑 pink/粉 brown/棕".split()
]
TOYS = [
    Word(*row.split("/"))
    for row in (
        "ball/球/balls/个 cup/杯子/cups/个 book/书/books/本 hat/帽子/hats/顶 kite/风筝/kites/只 "
        "box/盒子/boxes/个 pen/笔/pens/支 bag/书包/bags/个 bell/铃铛/bells/个 coat/外套/coats/件 "
        "lamp/台灯/lamps/盏 key/钥匙/keys/把 drum/小鼓/drums/面 boat/小船/boats/条 "
        "doll/娃娃/dolls/个 scarf/围巾/scarves/条 clock/闹钟/clocks/个 basket/篮子/baskets/个 "
        "umbrella/雨伞/umbrellas/把 mirror/镜子/mirrors/面"
    ).split()
]
GOODS = [  # what is counted
    Word(*row.split("/"))
    for row in (
        "apple/苹果/apples/个 pear/梨/pears/个 plum/李子/plums/个 egg/鸡蛋/eggs/个 "
        "nut/坚果/nuts/颗 flower/花/flowers/朵 shell/贝壳/shells/枚 stone/小石子/stones/块 "
        "leaf/树叶/leaves/片 cake/蛋糕/cakes/块 carrot/胡萝卜/carrots/根 coin/硬币/coins/枚"
    ).split()
]
FOOD = {"apple", "pear", "plum", "egg", "nut", "cake", "carrot"}
PLACES = [  # the first word is the preposition: "in the garden", but "went to the garden"
    Word(*pair.split("/"))
    for pair in (
        "in the garden/花园,in the kitchen/厨房,in the park/公园,at the school/学校,"
        "in the library/图书馆,at the shop/商店,in the forest/树林,at the zoo/动物园,"
        "at the market/市场,at the station/车站,in the museum/博物馆,at the beach/海边,"
        "at the farm/农场,at the bridge/桥边,in the hospital/医院,in the theatre/剧院"
    ).split(",")
]
SPOTS = [  # where something can be put down
    Word("on the table", "桌子上"),
    Word("under the bed", "床底下"),
    Word("behind the door", "门后面"),
    Word("next to the window", "窗户旁边"),
    Word("in the drawer", "抽屉里"),
    Word("on the chair", "椅子上"),
    Word("under the tree", "大树下"),
    Word("by the wall", "墙边"),
]
PASTIMES = [
    Word("sang a song", "唱了一首歌"),
    Word("took a nap", "睡了一会儿"),
    Word("drew a picture", "画了一幅画"),
    Word("told a joke", "讲了一个笑话"),
    Word("read a poem", "读了一首诗"),
    Word("played a game", "玩了一个游戏"),
    Word("drank some tea", "喝了一杯茶"),
    Word("washed the dishes", "洗了碗"),
    Word("fed the birds", "喂了小鸟"),
    Word("swept the floor", "扫了地"),
]
TIMES = [
    Word("One day", "有一天"),
    Word("One sunny morning", "一个晴朗的早晨"),
    Word("One rainy afternoon", "一个下雨的下午"),
    Word("One quiet evening", "一个安静的傍晚"),
    Word("On a cold winter day", "一个寒冷的冬日"),
    Word("Last summer", "去年夏天"),
    Word("On Sunday", "星期天"),
    Word("Early one morning", "一天清早"),
]
ENDINGS = [
    Word("In the end they all went home together.", "最后，他们一起回家了。"),
    Word("It was a good day.", "这真是愉快的一天。"),
    Word("Then they laughed and said goodbye.", "然后他们笑着说了再见。"),
    Word("They would never forget that day.", "他们永远不会忘记这一天。"),
    Word("At night everyone slept well.", "晚上，大家都睡得很香。"),
]
NUMBERS = [
    Word(*pair.split("/"))
    for pair in (
        "no/零 one/一 two/两 three/三 four/四 five/五 six/六 seven/七 eight/八 nine/九 ten/十 "
        "eleven/十一 twelve/十二"
    ).split()
]
