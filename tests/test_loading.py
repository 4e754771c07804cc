"""Loading and saving: every form of a checkpoint, without a second copy, never half a file."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time

import pytest
import torch
from files import SMALL, TOKENIZER, equal, small_folder, write_gguf
from layouts import EXPERTS, LAYOUTS, YARN, random_ids, random_model, replace

import qwen2_book.loading as loading
import qwen2_book.saving as saving
from qwen2_book import CheckpointError, Qwen2, Qwen2Config, Tokenizer, generate, load, save
from qwen2_book.checkpoint.layout import shapes

transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_names_and_shapes_of_a_configuration(layout):
    config = LAYOUTS[layout]
    with torch.device("meta"):
        state = Qwen2(config).state_dict()
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if config.tie_word_embeddings:
        del found["lm_head.weight"]
    assert shapes(config) == found


def test_how_many_tensors_the_released_files_hold():
    counts = {name: len(shapes(Qwen2Config.named(name))) for name in Qwen2Config.names()[::2]}
    assert counts["Qwen2-0.5B"] == 290
    assert counts["Qwen2-7B"] == 339


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_round_trip_through_transformers(layout, dtype, tmp_path):
    """Ours saved and theirs loaded, then theirs saved and ours loaded: equal logits, all along."""
    model = random_model(LAYOUTS[layout]).to(getattr(torch, dtype))
    save(model, None, tmp_path / "ours")
    other = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype="auto")
    ids = random_ids(2, 30, model.config)
    with torch.no_grad():
        theirs = other.eval()(ids).logits
        assert theirs.dtype == model.dtype
        if dtype == "float32":
            assert (model(ids) - theirs).abs().max() <= 1e-4
    other.save_pretrained(tmp_path / "theirs")
    again, tokenizer = load(tmp_path / "theirs", device="cpu")
    assert tokenizer is None and again.dtype == model.dtype
    assert equal(model, again)
    assert again.config.layer_windows == model.config.layer_windows


def test_tokenizer_settings_and_limit_come_along(tmp_path):
    model = small_folder(tmp_path)
    again, tokenizer = load(tmp_path)
    assert equal(model, again) and not again.training
    assert again.vocab_limit == len(tokenizer) == len(TOKENIZER)
    assert again.generation == model.generation
    assert again.name_or_path == tmp_path.name
    assert all(p.requires_grad for p in again.parameters())
    assert int(generate(again, [[1, 2]], 40).max()) < len(TOKENIZER)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", torch.bfloat16])
def test_dtypes(tmp_path, dtype):
    small_folder(tmp_path)
    model, _ = load(tmp_path, dtype=dtype)
    wanted = dtype if isinstance(dtype, torch.dtype) else getattr(torch, dtype)
    assert {p.dtype for p in model.parameters()} == {wanted}
    assert model(torch.tensor([[1, 2]])).dtype == wanted
    assert model.config.dtype == str(wanted).removeprefix("torch.")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"dtype": "int3"}, "dtype: found 'int3', expected auto, float32"),
        ({"dtype": torch.int8}, "dtype: found torch.int8"),
        ({"device": "gpu"}, "device: found 'gpu', expected auto, cpu"),
    ],
)
def test_unknown_options_are_named(tmp_path, option, message):
    small_folder(tmp_path)
    with pytest.raises(ValueError, match=message):
        load(tmp_path, **option)


@pytest.mark.parametrize("tied", [False, True])
def test_shards(tmp_path, tied, monkeypatch):
    monkeypatch.setattr(saving, "SHARD_BYTES", 60_000)
    model = small_folder(tmp_path, replace(SMALL, tie_word_embeddings=tied))
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) > 3 and all(file.stat().st_size < 100_000 for file in files)
    again, _ = load(tmp_path)
    assert equal(model, again)
    assert again.lm_head.weight is again.model.embed_tokens.weight or not tied
    other = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto").eval()
    ids = random_ids(1, 9, model.config)
    with torch.no_grad():
        assert (other(ids).logits - again(ids)).abs().max() <= 1e-4


def test_a_smaller_save_removes_the_old_shards(tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("mine")
    with monkeypatch.context() as patch:
        patch.setattr(saving, "SHARD_BYTES", 60_000)
        small_folder(tmp_path)
    model = small_folder(tmp_path, replace(SMALL, num_hidden_layers=1))
    assert sorted(f.name for f in tmp_path.iterdir()) == [
        *("config.json", "generation_config.json", "model.safetensors", "notes.txt"),
        *("tokenizer.json", "tokenizer_config.json"),
    ]
    assert equal(model, load(tmp_path)[0])


def test_saving_where_it_was_loaded_from(tmp_path):
    small_folder(tmp_path)
    model, tokenizer = load(tmp_path)
    with torch.no_grad():
        model.model.norm.weight.add_(1)
    save(model, tokenizer, tmp_path)
    assert equal(model, load(tmp_path)[0])


@pytest.mark.parametrize("when", ["weights", "tokenizer", "moving"])
def test_a_full_disk_leaves_the_old_files_whole(tmp_path, when, monkeypatch):
    old = small_folder(tmp_path)
    before = {f.name: f.read_bytes() for f in tmp_path.iterdir()}

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    target = {"weights": (saving, "save_file"), "tokenizer": (Tokenizer, "save")}
    monkeypatch.setattr(*target.get(when, (saving.os, "replace")), full)
    new = random_model(SMALL, seed=5)
    with pytest.raises(CheckpointError, match=r"could not save .*No space left.* free some space"):
        save(new, TOKENIZER, tmp_path)
    monkeypatch.undo()
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == before
    assert equal(old, load(tmp_path)[0])


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs to mount a disk")
def test_a_disk_that_is_really_full(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)], check=False
    )
    if mounted.returncode:
        pytest.skip("this machine does not let us mount a small disk")
    try:
        small_folder(disk / "model", replace(SMALL, num_hidden_layers=1))
        before = {f.name: f.read_bytes() for f in (disk / "model").iterdir()}
        with pytest.raises(CheckpointError, match="could not save"):
            save(random_model(replace(SMALL, num_hidden_layers=3)), TOKENIZER, disk / "model")
        assert {f.name: f.read_bytes() for f in (disk / "model").iterdir()} == before
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_writing_to_mapped_weights_changes_no_file(tmp_path):
    small_folder(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    model, _ = load(tmp_path)
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.sub_(parameter.grad)
    assert (tmp_path / "model.safetensors").read_bytes() == before


GGUF_LAYOUTS = {
    "untied": SMALL,
    "tied": replace(SMALL, tie_word_embeddings=True),
    "experts": replace(SMALL, **EXPERTS),
    "yarn": replace(SMALL, rope_scaling=YARN),
}


@pytest.mark.parametrize("layout", GGUF_LAYOUTS)
def test_gguf(layout, tmp_path):
    model = random_model(GGUF_LAYOUTS[layout])
    architecture = "qwen2moe" if model.config.num_experts else "qwen2"
    write_gguf(model, file := tmp_path / "small.gguf", architecture)
    again, tokenizer = load(file, dtype="float32")
    assert equal(model, again)
    for field in ("layer_windows", "rope_theta", "rope_scaling", "rms_norm_eps", "num_experts"):
        assert getattr(again.config, field) == getattr(model.config, field)
    assert tokenizer.encode("a little 文字") == TOKENIZER.encode("a little 文字")
    assert load(file)[0].dtype == torch.bfloat16
    assert again.generation == {"eos_token_id": [SMALL.eos_token_id]}
    assert equal(load(tmp_path, dtype="float32")[0], again)  # the folder's only file


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q5_1", "BF16", "F16"])
def test_gguf_types_as_the_library_dequantises_them(kind, tmp_path):
    import gguf

    kind = getattr(gguf.GGMLQuantizationType, kind)
    model = random_model(SMALL)
    write_gguf(model, file := tmp_path / "small.gguf", kind=kind)
    again, _ = load(file, dtype="float32")
    weight = model.lm_head.weight.detach().numpy()
    expected = gguf.quants.dequantize(gguf.quants.quantize(weight, kind), kind)
    assert torch.equal(again.lm_head.weight, torch.from_numpy(expected))


def test_safetensors_win_over_gguf(tmp_path):
    model = small_folder(tmp_path)
    write_gguf(random_model(SMALL, seed=9), tmp_path / "other.gguf")
    assert equal(load(tmp_path)[0], model)


def test_loading_a_large_untouched_model_takes_no_memory(tmp_path):
    """Parameters are the file's own pages: a process that loads 400 MB holds little more."""
    config = replace(
        SMALL,
        hidden_size=512,
        intermediate_size=8192,
        num_hidden_layers=8,
        num_attention_heads=8,
        vocab_size=512,
    )
    model = Qwen2(config)
    save(model, None, tmp_path)
    size = (tmp_path / "model.safetensors").stat().st_size
    code = (
        "import resource, sys, torch; from qwen2_book import load, Qwen2;"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024;"
        "before = peak(); model, _ = load(sys.argv[1]); loaded = peak() - before;"
        "model(torch.tensor([[1, 2]])); print(loaded, peak() - before)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True
    ).stdout
    loaded, run = map(int, out.split())
    assert size > 4e8
    assert loaded < 0.25 * size
    assert run < 1.2 * size


def test_meta_and_empty_models_keep_their_ties(tmp_path):
    model = small_folder(tmp_path, replace(SMALL, tie_word_embeddings=True))
    with torch.device("meta"):
        empty = Qwen2(model.config)
    empty = empty.to_empty(device="cpu")
    empty.load_state_dict(model.state_dict())
    assert empty.lm_head.weight is empty.model.embed_tokens.weight
    ids = random_ids(1, 5, model.config)
    with torch.no_grad():
        assert torch.equal(empty(ids), model(ids))
    moved = empty.to(torch.bfloat16)
    assert moved.lm_head.weight is moved.model.embed_tokens.weight


def test_config_of_reads_no_weights(tmp_path):
    model = small_folder(tmp_path)
    config, where = loading.config_of(tmp_path)
    assert config == model.config and where == str(tmp_path / "config.json")
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert loading.config_of(tmp_path)[0] == model.config


def test_a_symbolic_link_to_a_folder_is_fine(tmp_path):
    model = small_folder(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert equal(load(tmp_path / "link")[0], model)


def test_a_hub_cache_is_read_through_its_links(tmp_path):
    model = small_folder(tmp_path / "flat")
    snapshot = tmp_path / "models--a--b" / "snapshots" / "abc"
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for file in (tmp_path / "flat").iterdir():
        shutil.move(file, blobs / f"blob-{file.name}")
        (snapshot / file.name).symlink_to(f"../../blobs/blob-{file.name}")
    assert equal(load(snapshot)[0], model)


def test_the_real_folder_loads_quickly_and_generates(real_checkpoint):
    began = time.perf_counter()
    model, tokenizer = load(real_checkpoint, device="cpu")
    assert time.perf_counter() - began < 60
    assert model.dtype == torch.bfloat16
    assert (model.vocab_limit, len(tokenizer)) == (151_665, 151_665)
    written = json.loads((real_checkpoint / "generation_config.json").read_text())
    assert model.generation == written
