"""The ladder against transformers, on small random models of every layout."""

import json

import pytest
import torch
from layouts import DENSE, EXPERTS, LAYOUTS, random_ids, random_model, replace
from safetensors.torch import save_file
from tolerances import EXPERT_SHARE, TOLERANCES

from qwen2_book.cache import KVCache
from qwen2_book.checkpoint.layout import shapes
from qwen2_book.generate import generate
from qwen2_book.model import Qwen2
from qwen2_book.moe import load_balancing_loss
from qwen2_book.norm import RMSNorm
from qwen2_book.rope import inverse_frequencies

transformers = pytest.importorskip("transformers")


def reference(model: Qwen2, folder):
    """The same weights in transformers, through files as a reader would have them."""
    (folder / "config.json").write_text(json.dumps(model.config.to_dict()))
    state = model.state_dict()
    disk = {name: state[name].clone() for name in shapes(model.config)}
    save_file(disk, folder / "model.safetensors", {"format": "pt"})
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=model.dtype)
    return loaded.eval()


@pytest.fixture(scope="module", params=LAYOUTS, ids=str)
def pair(request, tmp_path_factory):
    model = random_model(LAYOUTS[request.param])
    return model, reference(model, tmp_path_factory.mktemp("reference"))


@torch.no_grad()
def test_logits(pair, record_property):
    model, other = pair
    ids = random_ids(3, 50, model.config)
    ours, theirs = model(ids), other(ids).logits
    assert 4 < ours.abs().max() < 60
    difference = float((ours - theirs).abs().max())
    record_property("difference", difference)
    assert difference <= TOLERANCES[torch.float32]


@torch.no_grad()
def test_every_layer_and_the_eager_path(pair):
    """One rung lower: the residual stream after each layer; attention in another order of sums."""
    model, other = pair
    ids, states = random_ids(2, 40, model.config), []
    parts = [model.model.embed_tokens, *model.model.layers]
    hooks = [part.register_forward_hook(lambda *a: states.append(a[-1])) for part in parts]
    logits = model(ids)
    for hook in hooks:
        hook.remove()
    before = other.config._attn_implementation
    other.set_attn_implementation("eager")
    seen = other(ids, output_hidden_states=True)
    other.set_attn_implementation(before)
    theirs = [*seen.hidden_states[:-1], None]  # the last one has been through the final norm
    for ours, wanted in zip(states, theirs, strict=True):
        assert wanted is None or (ours - wanted).abs().max() <= TOLERANCES[torch.float32]
    assert (logits - seen.logits).abs().max() <= TOLERANCES[torch.float32]


@torch.no_grad()
def test_logits_with_left_padding(pair):
    model, other = pair
    ids = random_ids(3, 50, model.config)
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[0, :11], mask[1, :30] = False, False
    positions = (mask.long().cumsum(1) - 1).clamp(min=0)
    theirs = other(ids, attention_mask=mask.long(), position_ids=positions).logits
    assert (model(ids, attention_mask=mask) - theirs)[mask].abs().max() <= TOLERANCES[torch.float32]


@torch.no_grad()
def test_logits_with_both_caches(pair):
    model, other = pair
    ids = random_ids(2, 40, model.config)
    cache, past = KVCache(model.config, 2, 64), None
    for part in ids.split([23] + [1] * 17, 1):
        out = other(part, past_key_values=past, use_cache=True)
        past = out.past_key_values
        assert (model(part, cache) - out.logits).abs().max() <= TOLERANCES[torch.float32]


@torch.no_grad()
def test_logits_with_both_caches_and_left_padding(pair):
    model, other = pair
    ids, mask = random_ids(2, 40, model.config), torch.ones(2, 40, dtype=torch.bool)
    mask[0, :17] = False
    positions = (mask.long().cumsum(1) - 1).clamp(min=0)
    cache, past, end = KVCache(model.config, 2, 64), None, 0
    for part in ids.split([23] + [1] * 17, 1):
        start, end = end, end + part.shape[1]
        out = other(
            part,
            past_key_values=past,
            use_cache=True,
            attention_mask=mask[:, :end].long(),
            position_ids=positions[:, start:end],
        )
        past, real = out.past_key_values, mask[:, start:end]
        ours = model(part, cache, attention_mask=real)
        assert (ours - out.logits)[real].abs().max() <= TOLERANCES[torch.float32]


@torch.no_grad()
def test_greedy_text(pair):
    model, other = pair
    ids = random_ids(1, 9, model.config)
    theirs = other.generate(
        ids, max_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert generate(model, ids, 24, stop=[]).tolist() == theirs[:, 9:].tolist()


def test_gradients(pair):
    model, other = pair
    ids = random_ids(2, 20, model.config)
    for network, run in ((model, model), (other, lambda x: other(x).logits)):
        network.zero_grad()
        run(ids).softmax(-1)[..., 3].sum().backward()
    assert (
        model.model.embed_tokens.weight.grad - other.model.embed_tokens.weight.grad
    ).abs().max() < 1e-4
    for name in ("q_proj", "k_proj", "v_proj"):
        ours = model.get_parameter(f"model.layers.0.self_attn.{name}.bias").grad
        theirs = other.get_parameter(f"model.layers.0.self_attn.{name}.bias").grad
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_logits_in_half_precision(layout, dtype, tmp_path):
    model = random_model(LAYOUTS[layout]).to(dtype)
    other = reference(model, tmp_path)
    ids = random_ids(2, 40, model.config)
    ours, theirs = model(ids), other(ids).logits
    assert ours.dtype == dtype
    difference = (ours.float() - theirs.float()).abs().amax(-1).flatten()
    share = EXPERT_SHARE if model.config.num_experts else 1.0
    assert difference.quantile(share) <= TOLERANCES[dtype]
    exact = random_model(LAYOUTS[layout])(ids)  # and no further from float32 than the table says
    difference = (ours.float() - exact).abs().amax(-1).flatten()
    assert difference.quantile(share) <= TOLERANCES[dtype]


def test_names_and_shapes_are_the_files(pair):
    model, other = pair
    ours = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        assert model.lm_head.weight is model.model.embed_tokens.weight
        assert ours.pop("lm_head.weight") == ours["model.embed_tokens.weight"]
    assert ours == shapes(model.config)
    if not model.config.num_experts:  # transformers fuses experts in memory
        other.load_state_dict(model.state_dict())
        model.load_state_dict(other.state_dict())


@pytest.mark.parametrize("eps", [1e-6, 1e-5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_rms_norm_is_the_same_to_the_bit(dtype, eps):
    from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

    ours, theirs = RMSNorm(96, eps).to(dtype), Qwen2RMSNorm(96, eps).to(dtype)
    ours.weight.data.normal_()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(5, 7, 96).to(dtype) * 30
    assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize(
    "scaling", [None, *(LAYOUTS[n].rope_scaling for n in LAYOUTS if "yarn" in n)]
)
def test_frequencies_are_the_same_to_the_bit(heads, scaling):
    from transformers.modeling_rope_utils import _compute_yarn_parameters

    config = replace(
        DENSE, num_attention_heads=heads, num_key_value_heads=1, head_dim=None, rope_scaling=scaling
    )
    theirs = transformers.Qwen2Config(**config.to_dict())
    frequencies, factor = inverse_frequencies(config)
    if scaling is None:
        from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

        expected, expected_factor = Qwen2RotaryEmbedding.compute_default_rope_parameters(theirs)
    else:
        expected, expected_factor = _compute_yarn_parameters(theirs)
    assert torch.equal(frequencies, expected)
    assert factor == pytest.approx(expected_factor, rel=1e-12)


@pytest.mark.parametrize("padded", [False, True])
def test_load_balancing_loss(padded):
    from transformers.models.qwen2_moe.modeling_qwen2_moe import load_balancing_loss_func

    layers = tuple(torch.randn(2 * 9, 8) for _ in range(3))
    mask = torch.ones(2, 9, dtype=torch.long)
    if padded:
        mask[0, :4] = 0
    theirs = load_balancing_loss_func(layers, 8, 3, mask if padded else None)
    real = mask.bool().flatten().repeat(3) if padded else None
    ours = load_balancing_loss(torch.cat(layers), 3, real)
    torch.testing.assert_close(ours, theirs)
    assert load_balancing_loss(torch.zeros(64, 8), 3) == pytest.approx(3)  # balance gives k


def test_the_two_spellings_of_a_config(tmp_path):
    from qwen2_book.config import Qwen2Config

    for name, config in LAYOUTS.items():
        if config.num_experts and config.use_sliding_window:
            continue  # transformers 5 has a rule of its own there; the files say layer_types
        folder = tmp_path / name.replace(" ", "-")
        kind = transformers.Qwen2MoeConfig if config.num_experts else transformers.Qwen2Config
        kind(**config.to_dict()).save_pretrained(folder)
        again = Qwen2Config.from_file(folder)
        assert again.layer_windows == config.layer_windows, name
        ignored = {"sliding_window", "max_window_layers", "layer_types", "dtype"}
        for field in set(config.__dataclass_fields__) - ignored:
            assert getattr(again, field) == getattr(config, field), (name, field)
    assert EXPERTS["num_experts"] == LAYOUTS["experts"].num_experts
