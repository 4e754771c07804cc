"""The training engine: packing, losses, the loop, exact resume, and what it refuses."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from layouts import DENSE, EXPERTS, random_model
from test_parity import reference

from qwen2_book import Qwen2
from qwen2_book.errors import TrainingError
from qwen2_book.moe import load_balancing_loss
from qwen2_book.training import loop, loss
from qwen2_book.training.data import IGNORE, PADDING, PackedSource, layout, pack, unpacked, whole
from qwen2_book.training.loss import balanced_loss, language_loss, mean_loss, token_log_probs
from qwen2_book.training.run_folder import read_metrics

SAMPLES = [whole([5 + (7 * k + j) % 50 for j in range(3 + k % 9)]) for k in range(12)]


def model_of(seed=0, **changes):
    torch.manual_seed(seed)
    small = {"num_hidden_layers": 2, "tie_word_embeddings": True, "initializer_range": 0.1}
    return Qwen2(replace(DENSE, **{**small, **changes}))


WINDOWS = {
    "full": {},
    "sliding": {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0},
    "mixed": {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1},
}


@pytest.mark.parametrize("window", WINDOWS)
def test_packed_equals_unpacked(window):
    model = model_of(**WINDOWS[window])
    packed, apart = pack(SAMPLES, 4, 32, cut=False), unpacked(SAMPLES)
    assert packed.weight == apart.weight == sum(len(ids) - 1 for ids, _ in SAMPLES)
    assert packed.token_ids.numel() < apart.token_ids.numel() * 1.5
    found, expected = token_log_probs(model, packed), token_log_probs(model, apart)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    grads = []
    for batch in (packed, apart):
        model.zero_grad()
        language_loss(model, batch).backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_no_text_sees_another():
    model = model_of()
    batch = pack(SAMPLES, 4, 32, cut=False)
    positions, masks = layout(batch.documents, model.config)
    for row in range(4):
        for text in range(int(batch.documents[row].max()) + 1):
            inside = batch.documents[row] == text
            assert positions[row][inside].tolist() == list(range(int(inside.sum())))
    x = model.model.embed_tokens(batch.token_ids).detach().requires_grad_()
    stream = x
    cos, sin = model.model.rotary(positions)
    for layer in model.model.layers:
        stream = layer(stream, cos, sin, masks[None])
    second = (batch.documents[0] == 1).nonzero()[:, 0]
    (grad,) = torch.autograd.grad(stream[0, second].sum(), x)
    seen = grad[0].abs().sum(-1) > 0
    assert seen[second].all() and int(seen.sum()) == len(second)


def test_cut_texts_go_on_in_the_next_row():
    batch = pack([whole(list(range(10, 30)))], 3, 8)
    assert batch.token_ids.tolist()[0] == list(range(10, 18))
    assert batch.token_ids.tolist()[1] == list(range(18, 26))
    assert batch.token_ids[2, :4].tolist() == [26, 27, 28, 29]
    assert batch.targets[0].tolist() == list(range(11, 19))
    assert batch.targets[2].tolist() == [27, 28, 29] + [IGNORE] * 5
    assert batch.documents[2].tolist() == [0] * 4 + [PADDING] * 4
    assert batch.weight == 19


def test_only_what_is_learned_is_a_target():
    batch = pack([([1, 2, 3, 4], [True, False, True, False])], 1, 6)
    assert batch.targets.tolist() == [[IGNORE, 3, IGNORE, IGNORE, IGNORE, IGNORE]]


def test_bad_samples_are_refused():
    with pytest.raises(TrainingError, match="9 tokens: expected at most 8"):
        pack([whole(range(9))], 2, 8, cut=False)
    with pytest.raises(TrainingError, match="no samples"):
        pack([], 2, 8)


@pytest.mark.parametrize("chunk", [1, 130, 10**9])
def test_loss_in_chunks_is_the_plain_loss(chunk, monkeypatch):
    model = model_of(tie_word_embeddings=False)
    batch = pack(SAMPLES, 4, 32, cut=False)
    positions, masks = layout(batch.documents, model.config)
    logits = model.lm_head(model.hidden_states(batch.token_ids, positions, masks))
    plain = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="sum")
    plain.backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    monkeypatch.setattr(loss, "CHUNK_LOGITS", chunk)
    found = language_loss(model, batch)
    found.backward()
    torch.testing.assert_close(found, plain, rtol=1e-6, atol=1e-6)
    for parameter, grad in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, grad, rtol=1e-5, atol=1e-5)


def test_no_more_logits_than_needed(monkeypatch):
    """The largest tensor with a vocabulary axis has as many rows as a chunk, or as are learned."""
    model, rows = model_of(), []
    real = loss._log_probs
    monkeypatch.setattr(loss, "_log_probs", lambda h, w, t: rows.append(len(h)) or real(h, w, t))
    monkeypatch.setattr(loss, "CHUNK_LOGITS", 8 * model.config.vocab_size)
    batch = pack([(ids, [j > 5 for j in range(len(ids))]) for ids, _ in SAMPLES], 4, 32, cut=False)
    with torch.no_grad():
        token_log_probs(model, batch)
    assert sum(rows) == batch.weight < 60 and max(rows) <= 8


def source(rows=2, seed=0):
    def samples(batch):
        g = torch.Generator().manual_seed(1000 * seed + batch)
        for _ in range(8):
            start = int(torch.randint(0, 60, (), generator=g))
            yield whole([(start + 3 * j) % 64 for j in range(14)])

    return PackedSource(samples, rows, 32, f"counting by threes, seed {seed}")


def test_it_learns_and_says_so(tmp_path):
    model = model_of()
    settings = loop.Settings(steps=30, peak_rate=1e-2, warm_up=3, evaluate_every=10)
    seen = []
    held_out = [source(seed=9).batch(0)]
    before = mean_loss(model, held_out)
    metrics = loop.train(
        model,
        source(),
        settings,
        tmp_path,
        held_out=held_out,
        on_step=lambda m: seen.append(len(m)),
    )
    assert seen == list(range(1, 31))
    assert metrics[-1]["held_out"] < 0.5 * before
    assert [m["step"] for m in metrics if not math.isnan(m["held_out"])] == [10, 20, 30]
    written = read_metrics(tmp_path / "metrics.csv")
    assert [row["loss"] for row in written] == [row["loss"] for row in metrics]
    with (tmp_path / "metrics.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 30
    assert not model.training


def test_accumulated_batches_are_one_large_batch():
    """Even where the small batches learn different numbers of tokens."""

    def samples(batch):
        yield whole(SAMPLES[batch % 12][0])

    def both(batch):
        yield from (SAMPLES[(2 * batch) % 12], SAMPLES[(2 * batch + 1) % 12])

    models = model_of(), model_of()
    small = PackedSource(samples, 1, 16, "one at a time", cut=False)
    large = PackedSource(both, 2, 16, "two at a time", cut=False)
    assert len({small.batch(k).weight for k in range(6)}) > 1
    settings = loop.Settings(steps=6, peak_rate=1e-2)
    first = loop.train(models[0], small, replace(settings, accumulate=2))
    second = loop.train(models[1], large, settings)
    for a, b in zip(first, second, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert a["gradient_norm"] == pytest.approx(b["gradient_norm"], rel=1e-3)


def test_decay_is_for_matrices_and_decoupled():
    model = model_of()
    optimizer = loop.make_optimizer(model, loop.Settings(steps=1, weight_decay=0.5))
    decayed, spared = optimizer.param_groups
    assert decayed["weight_decay"] == 0.5 and spared["weight_decay"] == 0
    assert all(p.ndim == 2 for p in decayed["params"]) and all(
        p.ndim == 1 for p in spared["params"]
    )
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(list(model.parameters()))
    before = model.lm_head.weight.detach().clone()
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()  # no gradient: only decay, of rate x decay
    torch.testing.assert_close(model.lm_head.weight.detach(), before * (1 - 1e-3 * 0.5))


def test_one_step_of_adamw_by_hand():
    model = model_of()
    settings = loop.Settings(steps=1, peak_rate=1e-2, clip=0.5)
    weight = model.model.layers[0].mlp.down_proj.weight
    before = weight.detach().clone()
    batch = source().batch(0)
    (language_loss(model, batch) / batch.weight).backward()
    norm = torch.sqrt(sum((p.grad**2).sum() for p in model.parameters()))
    grad = weight.grad * min(1.0, 0.5 / float(norm + 1e-6))
    mean, square = 0.1 * grad / (1 - 0.9), 0.05 * grad**2 / (1 - 0.95)
    expected = before * (1 - 1e-2 * 0.1) - 1e-2 * mean / (square.sqrt() + 1e-8)
    loop.train(model, source(), settings)
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-4, atol=1e-6)


def test_the_rate_rises_and_falls():
    settings = loop.Settings(steps=110, peak_rate=2.0, warm_up=10, final_share=0.1)
    rates = [settings.rate(step) for step in range(110)]
    assert rates[0] == pytest.approx(0.2) and rates[9] == rates[10] == 2.0
    assert rates[-1] == pytest.approx(0.2)
    assert sorted(rates[10:], reverse=True) == rates[10:]
    assert rates[10 + 49] + rates[10 + 50] == pytest.approx(2.2)  # half way: the mean of both ends


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_interrupted_equals_uninterrupted(tmp_path, precision):
    settings = loop.Settings(steps=9, peak_rate=1e-2, precision=precision, save_every=2)

    def noisy(model, batch):  # random numbers, too, go on where they were
        return language_loss(model, batch) * (1 + 0.1 * torch.rand(()))

    whole_run, resumed = model_of(), model_of()
    torch.manual_seed(7)
    expected = loop.train(whole_run, source(), settings, tmp_path / "whole", loss=noisy)

    class StopError(Exception):
        pass

    def stop(metrics):
        if len(metrics) == 5:
            raise StopError

    torch.manual_seed(7)
    with pytest.raises(StopError):
        loop.train(resumed, source(), settings, tmp_path / "cut", loss=noisy, on_step=stop)
    again = model_of(seed=3)
    found = loop.train(again, source(), settings, tmp_path / "cut", loss=noisy)
    assert json.dumps(found) == json.dumps(expected)
    for a, b in zip(whole_run.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    texts = [(tmp_path / f / "metrics.csv").read_text() for f in ("whole", "cut")]
    assert texts[0] == texts[1]


KILLED = """
import sys; sys.path[:0] = {path!r}
import torch; torch.set_num_threads(1)
from test_training import loop, model_of, source
loop.train(model_of(), source(), loop.Settings(steps=40, peak_rate=1e-2, save_every=1), {folder!r})
"""


def test_killed_at_any_moment_and_resumed_ends_with_the_same_bits(tmp_path):
    """SIGKILL at growing delays, again and again, until the run has ended."""
    torch.set_num_threads(1)
    settings = loop.Settings(steps=40, peak_rate=1e-2, save_every=1)
    loop.train(model_of(), source(), settings, tmp_path / "whole")
    folder = tmp_path / "killed"
    script = KILLED.format(path=[os.path.dirname(__file__)], folder=str(folder))
    kills = 0
    while not (folder / "step-00000040").exists():
        assert kills < 40
        process = subprocess.Popen([sys.executable, "-c", script])
        done = len(read_metrics(folder / "metrics.csv"))
        while process.poll() is None:
            now = len(read_metrics(folder / "metrics.csv"))
            if now >= done + 11:
                time.sleep(0.002 * (kills % 5))
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.001)
        process.wait()
    assert kills >= 2
    for name in ("weights.safetensors", "state.safetensors"):
        whole_bytes = (tmp_path / "whole/step-00000040" / name).read_bytes()
        assert whole_bytes == (folder / "step-00000040" / name).read_bytes()
    assert (tmp_path / "whole/metrics.csv").read_bytes() == (folder / "metrics.csv").read_bytes()
    assert len(list(folder.glob("step-*"))) == 2


def test_another_run_is_refused(tmp_path):
    settings = loop.Settings(steps=2)
    loop.train(model_of(), source(), settings, tmp_path)
    with pytest.raises(TrainingError, match=r"settings\.peak_rate was 0\.001, now 0\.5"):
        loop.train(model_of(), source(), replace(settings, peak_rate=0.5), tmp_path)
    with pytest.raises(TrainingError, match=r"source\.data was 'counting by threes, seed 0', now"):
        loop.train(model_of(), source(seed=1), settings, tmp_path)
    with pytest.raises(TrainingError, match=r"model\.hidden_size was"):
        loop.train(model_of(hidden_size=32), source(), settings, tmp_path)
    loop.train(model_of(), source(), replace(settings, save_every=1), tmp_path)


def test_a_damaged_checkpoint_is_named(tmp_path):
    loop.train(model_of(), source(), loop.Settings(steps=2, save_every=1), tmp_path)
    file = tmp_path / "step-00000002/weights.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(TrainingError, match=r"step-00000002.*could not be read"):
        loop.train(model_of(), source(), loop.Settings(steps=2, save_every=1), tmp_path)


def test_a_loss_that_is_not_finite_stops(tmp_path):
    model, calls = model_of(), []

    def explodes(model, batch):
        calls.append(batch)
        found = language_loss(model, batch)
        return found * math.nan if len(calls) == 5 else found

    settings = loop.Settings(steps=9, save_every=2)
    with pytest.raises(TrainingError, match=r"step 5, batch 4: the loss is nan.*step-00000004"):
        loop.train(model, source(), settings, tmp_path, loss=explodes)
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
    assert [f.name for f in sorted(tmp_path.glob("step-*"))] == ["step-00000002", "step-00000004"]


def test_a_gradient_that_is_not_finite_stops():
    model = model_of()
    before = [p.detach().clone() for p in model.parameters()]

    def steep(model, batch):
        return language_loss(model, batch) + (0 * model.lm_head.weight).sum().sqrt()

    with pytest.raises(TrainingError, match="the gradient's norm is nan"):
        loop.train(model, source(), loop.Settings(steps=1), loss=steep)
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


def test_nothing_is_pickled(tmp_path):
    loop.train(model_of(), source(), loop.Settings(steps=1), tmp_path)
    kinds = {f.suffix for f in tmp_path.rglob("*") if f.is_file()}
    assert kinds == {".json", ".csv", ".safetensors"}


def test_experts_train_as_well():
    model = model_of(**EXPERTS)
    metrics = loop.train(model, source(), loop.Settings(steps=20, peak_rate=1e-2))
    assert metrics[-1]["loss"] < 0.7 * metrics[0]["loss"]


def test_the_curve_shows_what_was_measured(monkeypatch):
    import IPython.display

    from qwen2_book.training.curve import LiveCurve, training_curve

    rows = [{"step": k + 1, "loss": 3.0 - 0.1 * k, "held_out": math.nan} for k in range(20)]
    rows[9]["held_out"], rows[19]["held_out"] = 2.5, 1.5
    losses, means, held_out = training_curve(rows).axes[0].lines
    assert losses.get_ydata().tolist() == [row["loss"] for row in rows]
    assert means.get_ydata()[-1] == pytest.approx(sum(row["loss"] for row in rows) / 20)
    assert held_out.get_xydata().tolist() == [[10, 2.5], [20, 1.5]]

    shown = []

    class Handle:
        def update(self, figure):
            shown.append(figure)

    monkeypatch.setattr(
        IPython.display, "display", lambda figure, display_id: shown.append(figure) or Handle()
    )
    live = LiveCurve(every=5)
    for count in range(1, 21):
        live(rows[:count])
    assert len(shown) == 4


@pytest.mark.parametrize("wrong", [{"precision": "float16"}, {"steps": 0}, {"accumulate": 0}])
def test_settings_without_meaning_are_refused(wrong):
    with pytest.raises(TrainingError, match="expected"):
        loop.Settings(**{"steps": 1, **wrong})


def expert_model():
    return random_model(replace(DENSE, **EXPERTS))


def router_gradients(model):
    return [layer.mlp.gate.weight.grad for layer in model.model.layers]


def test_balanced_loss_is_that_of_transformers(tmp_path):
    """One text a row, padding left out of both terms; the loss, and the routers' gradients."""
    ours, batch = expert_model(), unpacked(SAMPLES[:6])
    theirs = reference(ours, tmp_path)
    coefficient = theirs.config.router_aux_loss_coef = 0.5
    theirs.router_aux_loss_coef = coefficient
    real = batch.documents != PADDING
    labels = torch.where(real, batch.token_ids, IGNORE)
    given = {"attention_mask": real.long(), "labels": labels, "output_router_logits": True}
    expected = theirs(batch.token_ids, **given).loss
    found = balanced_loss(coefficient)(ours, batch) / batch.weight
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert found > language_loss(ours, batch) / batch.weight + 0.5 * 3
    expected.backward()
    found.backward()
    for a, b in zip(router_gradients(ours), router_gradients(theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_training_with_balance_evens_the_load_of_the_experts():
    def unevenness(coefficient):
        model, batch = expert_model(), pack(SAMPLES, 4, 32, cut=False)
        loop.train(
            model,
            source(),
            loop.Settings(steps=20, peak_rate=1e-2),
            loss=balanced_loss(coefficient),
        )
        with torch.no_grad():
            return float(balanced_loss(1.0)(model, batch) - language_loss(model, batch))

    assert unevenness(1.0) < 0.97 * unevenness(0.0)


@torch.no_grad()
def test_balance_layer_by_layer_is_the_mean_of_the_layers_losses():
    model, batch = expert_model(), pack(SAMPLES, 4, 32, cut=False)
    seen = []
    mixtures = [layer.mlp for layer in model.model.layers]
    hooks = [m.gate.register_forward_hook(lambda *call: seen.append(call[2])) for m in mixtures]
    plain = float(language_loss(model, batch))
    for hook in hooks:
        hook.remove()
    real = (batch.documents != PADDING).flatten()
    each = [float(load_balancing_loss(one, mixtures[0].top_k, real)) for one in seen]
    found = float(balanced_loss(0.5, by_layer=True)(model, batch)) - plain
    assert found == pytest.approx(0.5 * batch.weight * sum(each) / len(each), rel=1e-4)
    pooled = float(balanced_loss(0.5)(model, batch)) - plain
    assert pooled < found  # what one layer leaves idle another one makes up for


def test_a_dense_model_has_nothing_to_balance():
    with pytest.raises(TrainingError, match="no experts"):
        balanced_loss()(model_of(), pack(SAMPLES, 4, 32, cut=False))
