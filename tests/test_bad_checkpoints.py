"""All that goes wrong with checkpoint files, gone wrong: named errors, soon, in little room."""

import json
import os
import pickle
import random
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from files import SMALL, TOKENIZER, small_folder, write_gguf
from layouts import EXPERTS, random_model, replace

from qwen2_book import CheckpointError, ConfigError, TokenizerError, load
from qwen2_book.saving import save

NAMED = (CheckpointError, ConfigError, TokenizerError)


@pytest.fixture
def folder(tmp_path) -> Path:
    small_folder(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(scope="module")
def gguf_bytes(tmp_path_factory) -> bytes:
    file = tmp_path_factory.mktemp("gguf") / "small.gguf"
    write_gguf(random_model(replace(SMALL, num_hidden_layers=1)), file)
    return file.read_bytes()


def rewrite(file: Path, change) -> None:
    """Change a safetensors file's header, and keep its data."""
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def refused(source, message: str, kind=CheckpointError) -> str:
    began = time.perf_counter()
    with pytest.raises(kind, match=message) as error:
        load(source)
    assert time.perf_counter() - began < 10
    return str(error.value)


NORM = "model.norm.weight"


@pytest.mark.parametrize("keep", [0, 4, 8, 100, 5000, -1])
def test_truncated_safetensors(folder, keep):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    assert str(file) in refused(folder, "truncated|not readable")


@pytest.mark.parametrize("length", [0, 2**62, 2**64 - 1, 10**9])
def test_an_absurd_header_length(folder, length):
    file = folder / "model.safetensors"
    file.write_bytes(struct.pack("<Q", length) + file.read_bytes()[8:])
    assert str(file) in refused(folder, "header")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.pop(NORM), "overlaps or leaves a gap|ends at byte"),
        (lambda h: h.update({"extra.weight": h[NORM]}), "overlaps"),
        (
            lambda h: h[NORM].update(shape=[8, 8]),
            r"model\.norm\.weight: found shape \(8, 8\), expected \(64,\)",
        ),
        (lambda h: h[NORM].update(shape=[2**61, 2**61]), "do not fit the shape"),
        (lambda h: h[NORM].update(shape=[2**61] * 100_000), "found shape"),  # slow to multiply
        (lambda h: h[NORM].update(shape=[-64]), "found shape"),
        (lambda h: h[NORM].update(shape="64"), "found shape"),
        (lambda h: h[NORM].update(dtype="I64"), "found type 'I64', expected one of"),
        (lambda h: h[NORM].update(dtype="F8"), "found type 'F8'"),
        (lambda h: h[NORM].update(data_offsets=[0]), "offsets"),
        (lambda h: h[NORM].update(data_offsets=[0, 2**70]), "offsets"),
        (lambda h: h.update({NORM: 7}), "found type 7"),
        (
            lambda h: h.update({"lm_head.bias": h.pop(NORM)}),
            "1 tensors missing.*'model.norm.weight'",
        ),
        (lambda h: h.update({"other": h.pop("lm_head.weight")}), "unexpected, the first 'other'"),
    ],
)
def test_bad_headers(folder, change, message):
    rewrite(folder / "model.safetensors", change)
    assert str(folder) in refused(folder, message)


def test_a_header_of_millions_of_values_is_not_even_read(folder):
    text = b'{"a":[' + b"{}," * 6_000_000 + b"{}]}"
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    refused(folder, "the header's length is")
    (folder / "model.safetensors").rename(folder / "model.safetensors.index.json")
    refused(folder, "expected at most")


def test_a_header_that_is_no_object(folder):
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"[]")
    refused(folder, "the header is a list")
    deep = b"[" * 100_000
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(deep)) + deep)
    refused(folder, "not readable")


def sharded(folder: Path, monkeypatch) -> dict:
    monkeypatch.setattr("qwen2_book.saving.SHARD_BYTES", 60_000)
    small_folder(folder)
    return json.loads((folder / "model.safetensors.index.json").read_text())


@pytest.mark.parametrize(
    "name", ["../away.safetensors", "/etc/passwd", "a/b.safetensors", "", "\0"]
)
def test_an_index_that_points_outside(folder, name, monkeypatch):
    index = sharded(folder, monkeypatch)
    shutil.copy(next(folder.glob("model-*.safetensors")), folder.parent / "away.safetensors")
    index["weight_map"][NORM] = name
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, "the index names")


def test_a_link_that_leads_outside(folder):
    shutil.move(folder / "model.safetensors", folder.parent / "away.safetensors")
    (folder / "model.safetensors").symlink_to(folder.parent / "away.safetensors")
    refused(folder, "outside of its folder: refused")


@pytest.mark.parametrize(
    "name", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
)
def test_small_files_that_lead_outside_or_are_no_files(folder, name):
    file = folder / name
    file.rename(folder.parent / name)
    for target in (f"../{name}", "/dev/zero", name):  # the last is a circle
        file.symlink_to(target)
        refused(folder, "outside of its folder: refused|is not there")
        file.unlink()
    os.mkfifo(file)
    refused(folder, "no regular file")
    file.unlink()
    file.mkdir()
    refused(folder, "no regular file")


def test_a_missing_shard_and_a_wrong_index(folder, monkeypatch):
    index = sharded(folder, monkeypatch)
    file = folder / "model.safetensors.index.json"
    moved = dict(index["weight_map"])
    first, second = sorted(set(moved.values()))[:2]
    moved[next(n for n, f in moved.items() if f == first)] = second
    file.write_text(json.dumps({"weight_map": moved}))
    refused(folder, "not as indexed|tensors missing")
    file.write_text(json.dumps({"weight_map": index["weight_map"] | {"ghost": first}}))
    refused(folder, "1 tensors missing, such as 'ghost'")
    file.write_text(json.dumps(index))
    (folder / first).unlink()
    refused(folder, f"{first} is not there")
    for content in ("[]", "{", '{"weight_map": 3}', '{"weight_map": {"a": 1}}'):
        file.write_text(content)
        refused(folder, "index")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickles_are_refused_and_never_opened(folder, name):
    class Bomb:
        def __reduce__(self):
            return (open, (str(folder / "exploded"), "w"))

    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Bomb()))
    refused(folder, "pickle, which can run any code")
    refused(folder / name, "pickle, which can run any code")
    assert not (folder / "exploded").exists()


def test_config_and_weights_that_do_not_belong_together(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    refused(folder, "12 tensors missing.*Do config.json and the weights belong together")
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 100}))
    refused(folder, r"found shape \(96, 64\), expected \(100, 64\)")


def test_a_huge_config_is_refused_before_anything_is_built(folder):
    config = json.loads((folder / "config.json").read_text()) | EXPERTS
    config |= {"model_type": "qwen2_moe", "num_hidden_layers": 1024, "hidden_size": 1 << 20}
    config |= {"num_attention_heads": 4096, "num_key_value_heads": 4096, "num_experts": 16}
    (folder / "config.json").write_text(json.dumps(config))
    refused(folder, "tensors missing")


def test_a_tokenizer_that_does_not_match(folder):
    save(random_model(replace(SMALL, vocab_size=260, eos_token_id=None)), TOKENIZER, folder)
    refused(folder, "the tokenizer has 270 tokens, the embedding 260 rows")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{", "not readable JSON"),
        ("[]", "expected a JSON object"),
        ('{"eos_token_id": "end"}', "eos_token_id: found 'end'"),
        ('{"temperature": true}', "temperature: found True"),
        ('{"eos_token_id": [1, -2]}', "eos_token_id: found"),
        ('{"do_sample": 1}', "do_sample: found 1"),
    ],
)
def test_bad_generation_settings(folder, settings, message):
    (folder / "generation_config.json").write_text(settings)
    assert "generation_config.json" in refused(folder, message)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "nothing here", "neither a folder, nor a .gguf file, nor a hub id"),
        (lambda p: "a" * 5000, "neither|not a usable path"),
        (lambda p: "x\0y", "neither|not a usable path"),
        (lambda p: "~nobody-of-this-name/x", "not a usable path"),
        (lambda p: "", "source: found ''"),
        (lambda p: p, "holds no weights"),
        (lambda p: _touch(p / "notes.txt"), "expected a folder, a .gguf file or a hub id"),
        (
            lambda p: _touch(p / "a.gguf", p / "b.gguf").parent,
            r"holds \['a.gguf', 'b.gguf'\]: pass",
        ),
    ],
)
def test_sources_that_are_none(tmp_path, make, message):
    refused(make(tmp_path), message)


def _touch(*files: Path) -> Path:
    for file in files:
        file.write_bytes(b"")
    return files[0]


def test_a_folder_without_a_config_is_named(folder):
    (folder / "config.json").unlink()
    refused(folder, r"config\.json is not there", ConfigError)


@pytest.mark.parametrize("keep", [0, 3, 8, 24, 300, 20_000, -1])
def test_truncated_gguf(gguf_bytes, tmp_path, keep):
    file = tmp_path / "cut.gguf"
    file.write_bytes(gguf_bytes[:keep])
    assert str(file) in refused(file, "truncated|damaged|Fetch the file again|more bytes wanted")


def test_a_gguf_of_something_else(tmp_path, gguf_bytes):
    import gguf

    file = tmp_path / "other.gguf"
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    refused(file, "general.architecture: found 'llama', expected 'qwen2'")
    file.write_bytes(b"GGML" + gguf_bytes[4:])
    refused(file, "found magic b'GGML'")
    file.write_bytes(gguf_bytes[:4] + struct.pack("<I", 1) + gguf_bytes[8:])
    refused(file, "version 1")


def test_a_gguf_type_that_cannot_be_dequantised(tmp_path, gguf_bytes):
    from qwen2_book.gguf_file import read_head

    file = tmp_path / "x.gguf"
    file.write_bytes(gguf_bytes)
    tensor = read_head(file)[1]["output.weight"]
    name = b"output.weight"
    at = gguf_bytes.index(struct.pack("<Q", len(name)) + name) + 8 + len(name) + 4 + 16
    assert gguf_bytes[at : at + 4] == struct.pack("<I", tensor.kind)
    for kind in (4, 26, 999):  # a removed type, 32-bit integers, one that does not exist
        file.write_bytes(gguf_bytes[:at] + struct.pack("<I", kind) + gguf_bytes[at + 4 :])
        refused(file, f"output.weight: type {kind} cannot be dequantised")


def head(metadata: list[tuple[str, int, bytes]], tensors: list[tuple]) -> bytes:
    """The head of a GGUF file, written by hand, since the library writes none that is wrong."""

    def text(string: str) -> bytes:
        return struct.pack("<Q", len(string.encode())) + string.encode()

    parts = [b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    parts += [text(key) + struct.pack("<I", kind) + value for key, kind, value in metadata]
    for name, shape, kind, start in tensors:
        parts += [text(name), struct.pack(f"<I{len(shape)}Q", len(shape), *shape)]
        parts += [struct.pack("<IQ", kind, start)]
    return b"".join(parts)


def test_a_gguf_of_millions_of_values_is_refused(tmp_path):
    many = struct.pack("<IQ", 8, 400_000) + bytes(8 * 400_000)  # empty strings
    (tmp_path / "x.gguf").write_bytes(head([(f"k{i}", 9, many) for i in range(12)], []))
    refused(tmp_path / "x.gguf", "expected at most")


def test_gguf_tensors_that_share_their_bytes_are_refused(tmp_path):
    """Small files must not unpack to large models: 12,000 tensors, all of the same megabytes."""
    hidden, inner, layers = 1024, 16_384, 1000
    name = struct.pack("<Q", 5) + b"qwen2"
    numbers = {"block_count": layers, "embedding_length": hidden, "feed_forward_length": inner}
    numbers |= {"attention.head_count": 16, "attention.head_count_kv": 16}
    metadata = [("general.architecture", 8, name)]
    metadata += [(f"qwen2.{key}", 4, struct.pack("<I", value)) for key, value in numbers.items()]
    eps = ("qwen2.attention.layer_norm_rms_epsilon", 6, struct.pack("<f", 1e-6))
    tensors = [("token_embd.weight", (hidden, 300), 2, 0), ("output_norm.weight", (hidden,), 0, 0)]
    for layer in range(layers):
        at = f"blk.{layer}."
        tensors += [(f"{at}{part}_norm.weight", (hidden,), 0, 0) for part in ("attn", "ffn")]
        for part in ("q", "k", "v", "output"):
            tensors.append((f"{at}attn_{part}.weight", (hidden, hidden), 2, 0))
        tensors += [(f"{at}attn_{part}.bias", (hidden,), 0, 0) for part in "qkv"]
        tensors += [(f"{at}ffn_{part}.weight", (hidden, inner), 2, 0) for part in ("gate", "up")]
        tensors.append((f"{at}ffn_down.weight", (inner, hidden), 2, 0))
    (tmp_path / "x.gguf").write_bytes(head([*metadata, eps], tensors) + bytes(12 << 20))
    refused(tmp_path / "x.gguf", "after a tensor that ends at")


def test_a_part_of_a_gguf_is_named_as_such(tmp_path):
    name = struct.pack("<Q", 5) + b"qwen2"
    metadata = [("general.architecture", 8, name), ("split.count", 2, struct.pack("<H", 3))]
    (tmp_path / "x.gguf").write_bytes(head(metadata, []))
    refused(tmp_path / "x.gguf", "one of 3 parts. Merge them")


def mutated(random_: random.Random, whole: bytes, head: int) -> bytes:
    """A few bytes changed, most of them near the beginning, or the end cut off."""
    data = bytearray(whole)
    for _ in range(random_.choice([1, 1, 2, 8])):
        end = head if random_.random() < 0.8 else len(data)
        data[random_.randrange(end)] = random_.choice([0, 1, 0xFF, random_.randrange(256)])
    if random_.random() < 0.15:
        del data[random_.randrange(len(data)) :]
    return bytes(data)


def survives(source: Path, seed: str) -> bool:
    began = time.perf_counter()
    try:
        model, _ = load(source)
        loaded = True
        assert model(torch.tensor([[1]])).shape[1] == 1
    except NAMED:
        loaded = False
    assert time.perf_counter() - began < 10, seed
    return loaded


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "generation_config.json", "tokenizer_config.json"]
)
def test_any_bytes_load_or_are_refused(folder, name):
    random_ = random.Random(name)
    whole = (folder / name).read_bytes()
    loaded = 0
    for number in range(150):
        (folder / name).write_bytes(mutated(random_, whole, min(len(whole), 3000)))
        loaded += survives(folder, f"{name} {number}")
    assert loaded < 150


def test_any_bytes_of_a_gguf_load_or_are_refused(tmp_path, gguf_bytes):
    random_ = random.Random(3)
    file = tmp_path / "fuzz.gguf"
    loaded = 0
    for number in range(250):
        file.write_bytes(mutated(random_, gguf_bytes, random_.choice([64, 600, 12_000])))
        loaded += survives(file, f"gguf {number}")
    assert loaded < 250


def test_an_index_of_any_bytes(folder, monkeypatch):
    sharded(folder, monkeypatch)
    random_ = random.Random(4)
    file = folder / "model.safetensors.index.json"
    whole = file.read_bytes()
    for number in range(150):
        file.write_bytes(mutated(random_, whole, len(whole)))
        survives(folder, f"index {number}")


def test_bad_files_are_refused_in_little_memory(tmp_path, gguf_bytes):
    """Absurd counts and lengths in a process that may take 3 GB of address space more."""
    random_ = random.Random(5)
    for number in range(60):
        data = bytearray(gguf_bytes)
        at = random_.randrange(8, 9000)
        data[at : at + 8] = struct.pack("<Q", random_.choice([2**31, 2**40, 2**63, 2**22]))
        (tmp_path / f"{number}.gguf").write_bytes(data)
    code = (
        "import resource, sys, pathlib, qwen2_book as q\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 3 * 2**30,) * 2)\n"
        "for file in sorted(pathlib.Path(sys.argv[1]).glob('*.gguf')):\n"
        "    try: q.load(file)\n"
        "    except (q.CheckpointError, q.ConfigError, q.TokenizerError): pass\n"
        "print('survived')"
    )
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc to limit memory")
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert out.stdout.strip() == "survived", out.stderr[-2000:]
