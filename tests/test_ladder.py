"""The parity ladder: distances, what is recorded, the first difference, and the command."""

import inspect
import subprocess
import sys

import pytest
import torch

from qwen2_book import model as model_file
from qwen2_book import parity
from qwen2_book.model import Qwen2

SOURCE = inspect.getsource(model_file)
LAYOUTS = parity.layouts()


def small(name: str = "dense, own head"):
    config = LAYOUTS[name]
    return parity.random_model(config), parity.random_ids(config)


def test_distance_by_hand():
    expected = torch.tensor([[3.0, 4.0], [0.0, 5.0], [0.0, 0.0]])
    found = expected + torch.tensor([[0.5, 0.0], [0.0, 0.0], [0.0, 0.25]])
    assert parity.distance(found[:1], expected[:1]) == pytest.approx(0.1)
    assert parity.distance(found, expected) == pytest.approx(0.1)
    assert parity.distance(found[2:], expected[2:]) > 1e9  # nothing to compare with
    assert parity.distance(expected, expected) == 0
    assert parity.distance(found.flatten()[None], found) == 0  # the same numbers in one row
    for bad in (torch.nan, torch.inf):
        assert parity.distance(torch.full_like(expected, bad), expected) == float("inf")
    assert parity.distance(expected[:2], expected) == float("inf")


def test_one_long_vector_hides_nothing():
    expected = torch.ones(9, 4)
    expected[0] *= 1e6
    found = expected.clone()
    found[5] *= 1.01
    assert parity.distance(found, expected) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_recording_changes_nothing_and_has_every_tensor_in_order(layout):
    model, ids = small(layout)
    before = model(ids)
    seen = parity.record(model, ids)
    assert torch.equal(seen["logits"], before.detach())
    names = list(seen)
    for layer in range(model.config.num_hidden_layers):
        path = f"model.layers.{layer}"
        inside = [f"{path}.input_layernorm", f"{path}.self_attn.q_proj"]
        inside += [f"{path}.self_attn.o_proj, input", f"{path}.mlp", path]
        assert [names.index(name) for name in inside] == sorted(names.index(n) for n in inside)
    assert names[-1] == "logits"
    assert names.index("model.norm") > names.index("model.layers.3")
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_hooks_are_gone_after_an_error():
    model, _ = small()
    with pytest.raises(ValueError, match="token_ids"):
        parity.record(model, torch.full((1, 3), 10**6))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_the_first_difference_is_the_first():
    model, ids = small()
    other = parity.random_model(model.config)
    assert parity.first_difference(other, model, ids) is None
    with torch.no_grad():
        other.model.layers[2].self_attn.k_proj.bias[3] += 1
        other.model.layers[3].mlp.up_proj.weight.mul_(2)
    name, off = parity.first_difference(other, model, ids)
    assert name == "model.layers.2.self_attn.k_proj"
    assert 1e-4 < off < 1
    assert parity.first_difference(other, model, ids, tolerance=1e9) is None
    with torch.no_grad():
        other.model.norm.weight[0] = torch.nan
    assert parity.first_difference(other, model, ids, tolerance=1e9)[0] == "model.norm"


def test_every_layout_is_what_it_says():
    assert LAYOUTS["dense, tied head"].tie_word_embeddings
    assert not LAYOUTS["dense, own head"].tie_word_embeddings
    between = LAYOUTS["experts, dense between"]
    assert [between.is_sparse(layer) for layer in range(4)] == [False, True, False, False]
    assert all(LAYOUTS["experts"].is_sparse(layer) for layer in range(4))
    assert LAYOUTS["sliding from layer 2"].layer_windows == (None, None, 7, 7)
    assert LAYOUTS["YaRN"].rope_scaling is not None


@pytest.mark.parametrize("layout", LAYOUTS)
def test_small_models_have_logits_of_order_ten_and_no_idle_part(layout):
    model, ids = small(layout)
    assert torch.equal(parity.random_model(model.config)(ids), model(ids))
    assert 5 < model(ids).abs().max() < 20
    with torch.no_grad():
        before = model(ids)
        for name, each in model.named_parameters():
            if name.endswith("k_proj.bias"):
                continue  # the same shift of all keys moves all scores of a query alike, nearly
            if name.startswith("model.layers.3") or "layers" not in name:
                kept = each.clone()
                each.add_(0.2 * torch.randn(each.shape))
                assert not torch.equal(model(ids), before), name
                each.copy_(kept)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_ladder_finds_nothing_against_transformers(layout, tmp_path):
    transformers = pytest.importorskip("transformers")
    from qwen2_book import save

    model, ids = small(layout)
    save(model, None, tmp_path)
    kind = transformers.AutoModelForCausalLM
    reference = kind.from_pretrained(tmp_path, dtype=torch.float32).eval()
    found = parity.distances(model, reference, ids)
    assert len(found) > 90
    assert "model.layers.3.self_attn.o_proj, input" in found
    assert max(found.values()) < parity.TOLERANCE / 10
    with torch.no_grad():
        reference.model.layers[1].post_attention_layernorm.weight[5] += 0.5
    first = parity.first_difference(model, reference, ids)
    assert first[0] == "model.layers.1.post_attention_layernorm"


def run(file, *more: str):
    command = [sys.executable, "-m", "qwen2_book.parity", str(file), *more]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_on_a_sound_and_on_a_broken_copy(tmp_path):
    file = tmp_path / "my_model.py"
    file.write_text(SOURCE, encoding="utf-8")
    done = run(file)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("tensors agree") == len(LAYOUTS)
    broken = SOURCE.replace("self.post_attention_layernorm(x)", "x")
    file.write_text(broken, encoding="utf-8")
    done = run(file)
    assert done.returncode == 1
    assert "dense, own head: FIRST DIFFERENCE at model.layers.0.mlp" in done.stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1", "expected a class Qwen2"),
        (SOURCE.replace("self.norm =", "self.last_norm ="), "model.norm.weight"),
        (SOURCE.replace("nn.Linear(config.hidden_size,", "nn.Linear(7,"), "size mismatch"),
    ],
)
def test_files_that_cannot_be_compared(tmp_path, text, said):
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"mine\.py") as caught:
        parity.copy_of(tmp_path / "mine.py", small()[0])
    assert said in str(caught.value)


def test_a_missing_file_and_a_checkpoint(tmp_path, monkeypatch, capsys):
    from qwen2_book import load, save

    with pytest.raises(ValueError, match="found no Python file"):
        parity.copy_of(tmp_path / "none.py", small()[0])
    monkeypatch.setattr(sys, "argv", ["parity", str(tmp_path / "none.py")])
    with pytest.raises(SystemExit, match=r"error: .*none\.py"):
        parity.main()
    save(*load(dtype="float32"), tmp_path / "tiny")
    (tmp_path / "mine.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "mine.py"), str(tmp_path / "tiny")])
    with pytest.raises(SystemExit) as ended:
        parity.main()
    assert ended.value.code == 0
    assert "tiny: all" in capsys.readouterr().out


def test_a_copy_that_does_not_tie_its_head_is_caught(tmp_path):
    file = tmp_path / "mine.py"
    loose = SOURCE.replace("if self.config.tie_word_embeddings:", "if False:")
    assert loose != SOURCE
    file.write_text(loose, encoding="utf-8")
    models = {name: small(name) for name in ("dense, tied head", "dense, own head")}
    (tied, line), (own, _) = parity.report(file, models)
    assert not tied
    assert "at logits" in line
    assert own
    assert isinstance(models["dense, tied head"][0], Qwen2)
