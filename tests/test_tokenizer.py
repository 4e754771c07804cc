"""The tokenizer: the book's own encoder against the library's, files, and what is refused."""

import json
import random
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from texts import SAMPLES, excluded, generated

from qwen2_book import bpe
from qwen2_book.errors import TokenizerError
from qwen2_book.tokenizer import SPECIAL, Tokenizer

CHUNKS, EACH = 5, 4200  # 21,000 strings


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return Tokenizer.train(SAMPLES * 3 + generated(9, 300), 1000)


@pytest.fixture(scope="module")
def both(trained, tmp_path_factory) -> tuple[Tokenizer, Tokenizer]:
    folder = tmp_path_factory.mktemp("trained")
    trained.save(folder)
    return Tokenizer.from_file(folder, "python"), Tokenizer.from_file(folder, "library")


@pytest.fixture(scope="module")
def real_pair(real_checkpoint) -> tuple[Tokenizer, Tokenizer]:
    backends = ("python", "library")
    return tuple(Tokenizer.from_file(real_checkpoint, backend) for backend in backends)


def compare(ours: Tokenizer, library: Tokenizer, texts: list[str]) -> None:
    for text in texts:
        ids = ours.encode(text)
        assert ids == library.encode(text), ascii(text)
        assert ours.encode(text, True) == library.encode(text, True), ascii(text)
        assert ours.decode(ids) == unicodedata.normalize("NFC", text), ascii(text)
        assert not set(ids) & set(ours.added.values())


def test_few_characters_are_excluded():
    assert 0 < len(excluded()) < 400


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_equal_to_the_library_on_a_trained_vocabulary(both, chunk):
    compare(*both, generated(chunk, EACH))


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_equal_to_the_library_on_the_real_vocabulary(real_pair, chunk):
    compare(*real_pair, generated(100 + chunk, EACH))


def test_equal_to_the_library_reading_the_real_file_itself(real_pair, real_checkpoint):
    """Against the library's own reading of the file: it always parses control tokens."""
    import tokenizers

    library = tokenizers.Tokenizer.from_file(str(real_checkpoint / "tokenizer.json"))
    for text in SAMPLES + generated(77, 1500):
        assert real_pair[0].encode(text, allow_special=True) == library.encode(text).ids


def test_known_ids_of_the_real_vocabulary(real_pair):
    tokenizer = real_pair[0]
    assert len(tokenizer) == 151_665  # Qwen2.5 has 22 added tokens, Qwen2 three
    known = {"!": 0, ".": 13, "G": 38, "\n": 198, "\n\n": 271, ".\n": 624, "user": 872}
    known |= {"system": 8948, "assistant": 77091, "Hello": 9707, "é": 963, "e\u0301": 963}
    for text, expected in known.items():
        assert tokenizer.encode(text) == [expected]
    assert [tokenizer.added[name] for name in SPECIAL] == [151_643, 151_644, 151_645]
    assert tokenizer.decode([151_700, 9707, 151_935]) == "Hello"  # unused rows
    assert tokenizer.encode("12345") == [16, 17, 18, 19, 20]  # digit by digit


def test_the_gguf_file_holds_the_same_tokenizer(real_pair, real_gguf):
    tokenizer, other = real_pair[1], Tokenizer.from_file(real_gguf)
    for name in ("vocab", "merges", "added", "special_ids", "chat_template"):
        assert getattr(tokenizer, name) == getattr(other, name), name


def test_the_python_backend_needs_no_library(tmp_path, trained):
    trained.save(tmp_path)
    code = (
        "import sys; sys.modules['tokenizers'] = None\n"
        "from qwen2_book.tokenizer import Tokenizer\n"
        "t = Tokenizer.from_file(sys.argv[1], backend='python')\n"
        "assert t.decode(t.encode('héllo 你好')) == 'héllo 你好'\n"
        "t = Tokenizer.train(['a b a b'], 300, backend='python')\n"
        "try: Tokenizer.from_file(sys.argv[1])\n"
        "except ImportError: sys.exit(7)"
    )
    # the package's own __init__ imports what transformers and the hub need, so import past it
    stub = "import sys, types; p = types.ModuleType('qwen2_book'); p.__path__ = [sys.argv[2]]; "
    stub += "sys.modules['qwen2_book'] = p\n"
    package = Path(bpe.__file__).parent
    command = [sys.executable, "-c", stub + code, str(tmp_path), str(package)]
    assert subprocess.run(command, check=False).returncode == 7


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(alphabet="abc", min_size=1, max_size=30), st.integers(0, 10_000))
def test_the_fast_merge_is_the_slow_one(word, seed):
    random_ = random.Random(seed)
    parts = ["a", "b", "c"]
    ranks: dict[tuple[str, str], int] = {}
    for rank in range(12):
        pair = (random_.choice(parts), random_.choice(parts))
        if pair not in ranks:
            ranks[pair] = rank
            parts.append("".join(pair))
    assert bpe.merge(word, ranks) == bpe.merge_slowly(word, ranks)


def test_a_very_long_word_is_encoded_quickly(both):
    began = time.perf_counter()
    text = "ab" * 50_000
    assert both[0].decode(both[0].encode(text)) == text
    assert time.perf_counter() - began < 30  # the slow definition takes hours


def train_slowly(texts, size):
    """The definition: count all pairs of all words again for every merge."""
    from collections import Counter
    from itertools import pairwise

    counts = Counter(word for text in texts for word in bpe.words(text))
    pieces = {word: list(word) for word in counts}
    learnt = []
    while len({"".join(pair) for pair in learnt}) < size:
        pairs = Counter()
        for word, tokens in pieces.items():
            for pair in pairwise(tokens):
                pairs[pair] += counts[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        if pairs[best] < 2:
            break
        learnt.append(best)
        pieces = {word: bpe._join(tokens, best) for word, tokens in pieces.items()}
    return learnt


@pytest.mark.parametrize("seed", range(4))
def test_training_is_the_slow_definition(seed):
    texts = SAMPLES + generated(seed, 60) + ["aaaa aaa aa abab ababab"] * 3
    assert bpe.train(texts, 250) == train_slowly(texts, 250)


def test_training_respects_the_size(trained):
    assert len(trained) == 1000
    assert [trained.added[name] for name in SPECIAL] == [997, 998, 999]
    assert len(Tokenizer.train(["ab"], 5000)) == 259  # nothing occurs twice
    with pytest.raises(TokenizerError, match="expected at least 259"):
        Tokenizer.train(["ab"], 258)


def test_text_that_spells_a_control_token_stays_text(trained):
    for name in SPECIAL:
        assert trained.added[name] not in trained.encode(name)
        assert trained.decode(trained.encode(name)) == name
        assert trained.encode(f"a{name}b", allow_special=True)[1] == trained.added[name]


def test_decoding(trained):
    ids = [trained.added["<|im_start|>"], *trained.encode("Hi"), trained.added["<|im_end|>"]]
    assert trained.decode(ids) == "<|im_start|>Hi<|im_end|>"
    assert trained.decode(ids, skip_special=True) == "Hi"
    euro = [trained.vocab[bpe.CHARACTER_OF_BYTE[b]] for b in "€".encode()]
    assert trained.decode(euro) == "€"
    assert trained.decode(euro[:2]) == "\ufffd"
    assert trained.decode([10**6]) == ""
    with pytest.raises(TokenizerError, match="ids: found -1"):
        trained.decode([-1])


def test_arguments_of_other_types_are_refused():
    """Beside this session, whose check of annotations would come first."""
    code = """
from qwen2_book.errors import TokenizerError
from qwen2_book.tokenizer import Tokenizer
t = Tokenizer.train(["a"], 300)
calls = [(t.decode, bad) for bad in (["a"], [None], [1.5], [float("nan")], [True], 5, None, "1")]
calls += [(t.encode, bad) for bad in (None, 5, b"a", ["a"])]
calls += [(t.apply_chat_template, bad) for bad in (None, "Hi", {"role": "user"}, [None])]
deep = []
for _ in range(100_000):
    deep = [deep]
calls.append((t.apply_chat_template, [{"role": "user", "content": "x", "extra": deep}]))
for call, bad in calls:
    try:
        call(bad)
    except TokenizerError:
        continue
    raise SystemExit(f"{call.__name__}({bad!r:.60}) is not refused")
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_names_of_tokens(trained):
    assert trained.token_to_id("<|im_end|>") == trained.added["<|im_end|>"]
    assert all(trained.id_to_token(i) == token for token, i in trained.vocab.items())
    assert trained.token_to_id("no such token") is None
    assert trained.id_to_token(10**9) is None
    assert "".join(trained.tokens("a b")) == "a b"


def test_files_that_transformers_saves_again_load(trained, tmp_path):
    transformers = pytest.importorskip("transformers")
    trained.save(tmp_path / "ours")
    transformers.AutoTokenizer.from_pretrained(tmp_path / "ours").save_pretrained(
        tmp_path / "theirs"
    )
    again = Tokenizer.from_file(tmp_path / "theirs", "python")
    for name in ("vocab", "merges", "added", "special_ids"):
        assert getattr(again, name) == getattr(trained, name), name


def test_saved_as_one_file(trained, tmp_path):
    trained.save(tmp_path / "mine.json")
    assert Tokenizer.from_file(tmp_path / "mine.json").vocab == trained.vocab


def test_a_lone_surrogate_is_refused(trained):
    with pytest.raises(TokenizerError, match=r"U\+D800\) at character 2"):
        trained.encode("ab\ud800")


def test_transformers_loads_what_is_saved(trained, tmp_path):
    transformers = pytest.importorskip("transformers")
    trained.save(tmp_path)
    assert not list(tmp_path.glob(".*.part"))
    other = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in SAMPLES + generated(5, 300):
        assert other.encode(text, add_special_tokens=False) == trained.encode(text, True)
    messages = [{"role": "user", "content": "Hi"}]
    assert trained.apply_chat_template(messages) == other.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("small")
    Tokenizer.train(["aa bb aa bb"], 262).save(folder)
    return json.loads((folder / "tokenizer.json").read_text())


def changed(values: dict, *path, to) -> dict:
    values = json.loads(json.dumps(values))
    inner = values
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return values


@pytest.mark.parametrize(
    ("path", "to", "message"),
    [
        (["model", "type"], "Unigram", r"model\.type: found 'Unigram', expected 'BPE'"),
        (["model", "byte_fallback"], True, r"model\.byte_fallback"),
        (["model", "merges"], [["a", "zz"]], r"merges: \('a', 'zz'\) joins"),
        (["model", "merges"], ["a b c"], r"model\.merges: found"),
        (["model", "merges"], None, "merges: found None, expected list"),
        (["model", "vocab"], {"a": 0}, "255 of the 256 single bytes are missing"),
        (["model", "vocab", "a"], -1, "vocab: expected an object"),
        (["model", "vocab", "a"], 2**40, "vocab: expected an object"),
        (["model", "vocab", "a"], 1, "two tokens have the same id"),
        (["model", "vocab", "\u4e2d"], 900, "not written in byte characters"),
        (["normalizer"], None, "normalizer: found None, expected NFC"),
        (["pre_tokenizer"], {"type": "Whitespace"}, "pretokenizers: found None"),
        (
            ["pre_tokenizer", "pretokenizers", 0, "pattern", "Regex"],
            "(a+)+$",
            "other patterns|Other",
        ),
        (["added_tokens", 0, "lstrip"], True, "added_tokens: '<|endoftext|>' strips"),
        (["added_tokens", 0, "id"], 0, "two tokens have the same id"),
        (["added_tokens", 0, "content"], "", "added_tokens: expected an object"),
        (["added_tokens", 0, "content"], "a", "'a' has another id"),
        (["added_tokens", 0, "content"], "x" * 300, "at most 256 characters"),
        (
            ["added_tokens"],
            [{"id": 300 + i, "content": f"x{i}"} for i in range(2000)],
            "1,024 tokens",
        ),
        (["post_processor"], {"type": "TemplateProcessing"}, "post_processor: found"),
    ],
)
def test_mistakes_name_file_and_field(small, path, to, message, tmp_path):
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(changed(small, *path, to=to)))
    with pytest.raises(TokenizerError, match=message) as error:
        Tokenizer.from_file(file)
    assert str(file) in str(error.value)


def test_both_spellings_of_merges(small, tmp_path):
    joined = [" ".join(pair) for pair in small["model"]["merges"]]
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(changed(small, "model", "merges", to=joined)))
    assert Tokenizer.from_file(file).merges == [tuple(p) for p in small["model"]["merges"]]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TokenizerError, match=r"tokenizer\.json is not there"):
        Tokenizer.from_file(tmp_path)


@pytest.mark.parametrize("content", ["[]", "7", '{"chat_template": 7}', "\x00", "{"])
def test_a_bad_configuration_is_named(small, content, tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(small))
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(TokenizerError, match=r"tokenizer_config\.json"):
        Tokenizer.from_file(tmp_path)


@pytest.mark.parametrize("seed", range(4))
def test_any_bytes_load_or_are_refused(small, seed, tmp_path):
    random_ = random.Random(seed)
    whole = json.dumps(small).encode()
    file = tmp_path / "tokenizer.json"
    loaded = 0
    for _ in range(100):
        data = bytearray(whole)
        for _ in range(random_.choice([1, 1, 3, 20])):
            data[random_.randrange(len(data))] = random_.randrange(256)
        if random_.random() < 0.1:
            data = data[: random_.randrange(len(data))]
        file.write_bytes(data)
        try:
            Tokenizer.from_file(file, random_.choice(["python", "library"])).encode("aa bb")
            loaded += 1
        except TokenizerError:
            pass
    assert 0 < loaded < 100
