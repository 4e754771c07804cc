"""Loading and saving: every form of a checkpoint, without a second copy, never half a file."""

import errno
import json
import math
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
from qwen2_book.checkpoint import hub, safetensors_file
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

    target = {"weights": (safetensors_file, "save_file"), "tokenizer": (Tokenizer, "save")}
    monkeypatch.setattr(*target.get(when, (os, "replace")), full)
    new = random_model(SMALL, seed=5)
    with pytest.raises(CheckpointError, match=r"could not save .*No space left.* free some space"):
        save(new, TOKENIZER, tmp_path)
    monkeypatch.undo()
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == before
    assert equal(old, load(tmp_path)[0])


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
@pytest.mark.parametrize("shards", [False, True])
def test_a_failure_at_any_move_puts_the_old_files_back(tmp_path, shards, error, monkeypatch):
    """Old and new checkpoints differ in layout; the first, second, … move fails, until none."""
    old = small_folder(tmp_path)
    before = {f.name: f.read_bytes() for f in tmp_path.iterdir()}
    new = random_model(replace(SMALL, num_hidden_layers=1), seed=5)
    monkeypatch.setattr(saving, "SHARD_BYTES", 60_000 if shards else saving.SHARD_BYTES)
    move = os.replace
    for allowed in range(100):
        moved: list[str] = []

        def limited(source, target, moved=moved, allowed=allowed):
            if len(moved) == allowed:
                raise error
            moved.append(str(source))
            move(source, target)

        monkeypatch.setattr(os, "replace", limited)
        try:
            save(new, TOKENIZER, tmp_path)
            break
        except (CheckpointError, KeyboardInterrupt):
            monkeypatch.setattr(os, "replace", move)
            assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == before
            assert equal(old, load(tmp_path)[0])
    assert allowed > 8
    again, _ = load(tmp_path)
    assert equal(again, new) and again.generation == {}  # the old settings are not the new model's
    assert not (tmp_path / "generation_config.json").exists()


def test_what_cannot_be_put_back_is_kept(tmp_path, monkeypatch):
    old = small_folder(tmp_path)
    weights = (tmp_path / "model.safetensors").read_bytes()
    move = os.replace

    def last_fails(source, target):
        if str(target) == str(tmp_path / "config.json"):
            raise OSError(errno.EIO, "the disk is gone")
        move(source, target)

    monkeypatch.setattr(os, "replace", last_fails)
    monkeypatch.setattr(os, "rename", last_fails)
    with pytest.raises(CheckpointError, match="could not save"):
        save(old, TOKENIZER, tmp_path)
    kept = {f.name: f for f in tmp_path.glob(".saving-*/replaced/*")}
    everywhere = kept | {f.name: f for f in tmp_path.iterdir()}
    assert everywhere["model.safetensors"].read_bytes() == weights
    assert "config.json" in kept


def test_a_failed_save_leaves_no_new_folder(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(safetensors_file, "save_file", full)
    with pytest.raises(CheckpointError, match="could not save"):
        save(random_model(SMALL), TOKENIZER, tmp_path / "a" / "b")
    assert not (tmp_path / "a" / "b").exists()


def test_one_file_wins_over_an_index_that_was_left_behind(tmp_path):
    model = small_folder(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "gone"}}')
    assert equal(load(tmp_path)[0], model)


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
    assert again.generation == {"eos_token_id": [SMALL.eos_token_id, len(TOKENIZER) - 3]}
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


def test_gguf_with_all_of_yarn_and_without_a_tokenizer(tmp_path):
    import gguf

    model = random_model(replace(SMALL, rope_scaling=YARN, tie_word_embeddings=True))
    write_gguf(model, whole := tmp_path / "whole.gguf")
    reader = gguf.GGUFReader(str(whole))
    writer = gguf.GGUFWriter(str(tmp_path / "bare.gguf"), "qwen2")
    for name, field in reader.fields.items():
        if not name.startswith(("GGUF.", "general.architecture", "tokenizer.")):
            writer.add_key_value(name, field.contents(), field.types[0])
    writer.add_rope_scaling_yarn_beta_fast(16.0)
    writer.add_rope_scaling_yarn_beta_slow(2.0)
    writer.add_rope_scaling_yarn_attn_factor(1.5)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data.copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    again, tokenizer = load(tmp_path / "bare.gguf", dtype="float32")
    assert tokenizer is None and again.vocab_limit is None and again.generation == {}
    assert equal(model, again)
    scaling = again.config.rope_scaling
    assert (scaling.beta_fast, scaling.beta_slow) == (16.0, 2.0)
    usual = 0.1 * math.log(YARN.factor) + 1  # llama.cpp's factor multiplies it
    assert scaling.attention_factor == pytest.approx(1.5 * usual)


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


def test_a_conversion_holds_no_second_copy(tmp_path):
    """bfloat16 to float32, tensor by tensor: what was read is given back at once."""
    model = Qwen2(replace(SMALL, hidden_size=512, intermediate_size=8192, num_hidden_layers=6))
    save(model.to(torch.bfloat16), None, tmp_path)
    code = (
        "import resource, sys; from qwen2_book import load;"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024;"
        "before = peak(); model, _ = load(sys.argv[1], device='cpu', dtype='float32');"
        "print((peak() - before) / sum(p.nbytes for p in model.parameters()))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert float(out) < 1.2


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


def test_blobs_that_several_checkpoints_share(tmp_path):
    """The hub's library may link a blob on to a store for the whole cache."""
    model = small_folder(tmp_path / "flat")
    snapshot = tmp_path / "models--a--b" / "snapshots" / "abc"
    blobs, store = tmp_path / "models--a--b" / "blobs", tmp_path / "blobs" / "ab"
    for folder in (snapshot, blobs, store):
        folder.mkdir(parents=True)
    for file in (tmp_path / "flat").iterdir():
        shutil.move(file, store / file.name)
        (blobs / file.name).symlink_to(f"../../blobs/ab/{file.name}")
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    assert equal(load(snapshot)[0], model)
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to("/etc/hostname")
    with pytest.raises(CheckpointError, match="outside of its folder"):
        load(snapshot)


def test_of_a_hub_id_only_the_configuration_is_fetched_for_it(tmp_path, monkeypatch):
    model = small_folder(tmp_path)
    asked = []
    monkeypatch.setattr(hub, "fetch", lambda name, files: asked.append((name, files)) or tmp_path)
    assert loading.config_of("me/small")[0] == model.config
    assert asked == [("me/small", ["config.json"])]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_named(tmp_path):
    small_folder(tmp_path)
    for device in ("cuda", "cuda:3", torch.device("cuda")):
        with pytest.raises(ValueError, match="which this PyTorch does not see here"):
            load(tmp_path, device=device)


def test_the_real_folder_loads_quickly_and_generates(real_checkpoint):
    began = time.perf_counter()
    model, tokenizer = load(real_checkpoint, device="cpu")
    assert time.perf_counter() - began < 60
    assert model.dtype == torch.bfloat16
    assert (model.vocab_limit, len(tokenizer)) == (151_665, 151_665)
    written = json.loads((real_checkpoint / "generation_config.json").read_text())
    assert model.generation == written
