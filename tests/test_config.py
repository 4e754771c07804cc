"""Configurations: the released ones, both spellings, and what is refused."""

import dataclasses
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import DENSE, EXPERTS, LAYOUTS, replace

from qwen2_book.config import FULL, SLIDING, Qwen2Config, RopeScaling
from qwen2_book.errors import ConfigError
from qwen2_book.rope import inverse_frequencies

RELEASED = {  # as released: `config.json` of Qwen2-7B-Instruct, the fields that matter
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "hidden_size": 3584,
    "initializer_range": 0.02,
    "intermediate_size": 18944,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "model_type": "qwen2",
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 131072,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 152064,
}


def test_there_are_ten_released():
    names = Qwen2Config.names()
    assert len(names) == 10
    sizes = ("0.5B", "1.5B", "7B", "72B", "57B-A14B")
    assert names == [f"Qwen2-{size}{kind}" for size in sizes for kind in ("", "-Instruct")]
    for name in names:
        config = Qwen2Config.named(name)
        assert config.layer_windows == (None,) * config.num_hidden_layers
        assert config.rope_theta == 1e6 and config.rope_scaling is None
        assert Qwen2Config.named(f"Qwen/{name}") == config
    assert Qwen2Config.named("Qwen2-72B").rms_norm_eps == 1e-5
    assert Qwen2Config.named("Qwen2-72B-Instruct").rms_norm_eps == 1e-6
    with pytest.raises(ConfigError, match=r"Qwen2-0\.5B-Instruct"):
        Qwen2Config.named("Qwen3-8B")


def test_the_released_spelling_is_the_named_one():
    assert Qwen2Config.from_dict(RELEASED) == Qwen2Config.named("Qwen2-7B-Instruct")


def test_the_spelling_of_transformers_5():
    new = {k: v for k, v in RELEASED.items() if k not in ("rope_theta", "torch_dtype")}
    new |= {"dtype": "bfloat16", "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}
    new |= {"layer_types": [FULL] * 28}
    config = Qwen2Config.from_dict(new)
    assert config == replace(Qwen2Config.from_dict(RELEASED), layer_types=(FULL,) * 28)
    yarn = {"rope_type": "yarn", "rope_theta": 5e5, "factor": 4.0}
    yarn["original_max_position_embeddings"] = 32768
    config = Qwen2Config.from_dict(new | {"rope_parameters": yarn})
    assert config.rope_theta == 5e5
    assert config.rope_scaling == RopeScaling(4.0, 32768)
    old = Qwen2Config.from_dict(RELEASED | {"rope_scaling": {"type": "yarn", "factor": 4.0}})
    assert old.rope_scaling == RopeScaling(4.0, 32768)  # the length is max_position_embeddings


@pytest.mark.parametrize("layout", LAYOUTS)
def test_written_and_read_again(layout, tmp_path):
    config = LAYOUTS[layout]
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    again = Qwen2Config.from_file(tmp_path)
    assert again.layer_windows == config.layer_windows
    plain = {"layer_types": None, "sliding_window": None, "max_window_layers": 0}
    assert replace(again, **plain, use_sliding_window=False) == replace(
        config, **plain, use_sliding_window=False
    )


def test_what_a_silent_file_means():
    """As in transformers: null and missing are the same, and not Qwen2's own values."""
    for change in ({}, {"rope_theta": None, "max_window_layers": None}):
        values = {k: v for k, v in RELEASED.items() if k not in ("rope_theta", "max_window_layers")}
        config = Qwen2Config.from_dict(values | change)
        assert (config.rope_theta, config.max_window_layers) == (10_000.0, 28)


def test_the_switch_is_obeyed():
    sliding = replace(DENSE, use_sliding_window=True, sliding_window=9)
    assert sliding.layer_windows == (9,) * 4
    assert replace(sliding, use_sliding_window=False).layer_windows == (None,) * 4
    typed = replace(sliding, layer_types=(FULL, SLIDING, FULL, SLIDING))
    assert typed.layer_windows == (None, 9, None, 9)
    assert replace(typed, use_sliding_window=False).layer_windows == (None,) * 4


@pytest.mark.parametrize("full", [0, 1, 3, 4, 28])
def test_layers_slide_from_max_window_layers_on(full):
    config = DENSE.with_window(9, full_layers=full)
    assert config.layer_windows == tuple(None if i < full else 9 for i in range(4))
    assert config.with_window(None).layer_windows == (None,) * 4


def test_yarn_of_qwen2():
    """The documented setting: factor 4 from 32,768; which pairs are kept, blended and slowed."""
    for head_dim, kept, blended in ((128, 24, 16), (64, 12, 8)):
        yarn = RopeScaling(4.0, 32768)
        config = replace(DENSE, head_dim=head_dim, rope_theta=1e6, rope_scaling=yarn)
        ours, factor = inverse_frequencies(config)
        plain, one = inverse_frequencies(replace(config, rope_scaling=None))
        ratio = (ours / plain).tolist()
        assert [round(r, 6) for r in ratio[:kept]] == [1.0] * kept
        assert all(0.25 < r < 1 for r in ratio[kept : kept + blended])
        assert [round(r, 6) for r in ratio[kept + blended :]] == [0.25] * (
            head_dim // 2 - kept - blended
        )
        assert (round(factor, 6), one) == (1.138629, 1.0)
        assert round(factor**2, 6) == 1.296477


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama"}, "model_type: found 'llama', expected 'qwen2'"),
        ({"model_type": None}, "model_type: found None"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "rope_type: found 'linear'"),
        ({"rope_scaling": {"type": "yarn"}}, "factor is missing"),
        (
            {"rope_scaling": {"type": "yarn", "factor": 4, "mscale": 2}},
            r"unknown fields \['mscale'\]",
        ),
        ({"rope_scaling": {"type": "yarn", "factor": -4}}, "factor: found -4"),
        ({"rope_scaling": "yarn"}, "rope_scaling: found 'yarn'"),
        ({"rope_scaling": {"type": ["yarn"]}}, r"rope_type: found \['yarn'\]"),
        ({"rope_scaling": {"type": "yarn", "rope_type": "linear"}}, "rope_type: found"),
        (
            {"rope_scaling": {"type": "yarn", "factor": 4, "partial_rotary_factor": "x"}},
            "partial rotation",
        ),
        ({"rope_scaling": {"type": "yarn", "factor": 10**400}}, "factor: found 1000"),
        ({"rope_theta": 10**400}, "rope_theta: found 1000"),
        ({"num_attention_heads": 20}, "hidden_size: found 3584, expected a multiple"),
        ({"num_key_value_heads": 3}, "num_key_value_heads: found 3, expected a divisor"),
        ({"head_dim": 65}, "head_dim: found 65, expected an even number"),
        ({"hidden_act": "gelu"}, "hidden_act: found 'gelu', expected 'silu'"),
        ({"hidden_size": None}, r"missing \['hidden_size'\]"),
        ({"hidden_size": "3584"}, "hidden_size: found '3584', expected an integer"),
        ({"hidden_size": True}, "hidden_size: found True"),
        ({"hidden_size": 3584.0}, "hidden_size: found 3584.0"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers: found 10"),
        ({"num_hidden_layers": -1}, "num_hidden_layers: found -1"),
        ({"vocab_size": 0}, "vocab_size: found 0"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps: found nan"),
        ({"rope_theta": float("inf")}, "rope_theta: found inf"),
        ({"rope_theta": 0}, "rope_theta: found 0"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings: found 'no'"),
        ({"use_sliding_window": True, "sliding_window": None}, "sliding_window: found None"),
        ({"use_sliding_window": True, "sliding_window": 0}, "sliding_window: found 0"),
        ({"layer_types": ["full_attention"]}, "layer_types: found"),
        ({"layer_types": ["other"] * 28}, "layer_types: found"),
        ({"torch_dtype": "int8"}, "dtype: found 'int8'"),
        ({"eos_token_id": "x"}, "eos_token_id: found 'x'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
    ],
)
def test_mistakes_name_the_field(change, message, tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(RELEASED | change))
    with pytest.raises(ConfigError, match=message) as error:
        Qwen2Config.from_file(file)
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_experts": 10**6}, "num_experts: found 1000000"),
        ({"num_experts_per_tok": 9}, "num_experts_per_tok: found 9"),
        ({"moe_intermediate_size": 0}, "moe_intermediate_size: found 0"),
        ({"decoder_sparse_step": 0}, "decoder_sparse_step: found 0"),
        ({"mlp_only_layers": [None]}, "mlp_only_layers: found"),
        ({"num_experts": 4096, "num_hidden_layers": 100}, "16,384 experts"),
    ],
)
def test_mistakes_of_experts_name_the_field(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(DENSE, **(EXPERTS | change))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 200_000,
        b'{"model_type": "qwen2"}',
        b"1" * 5000,
    ],
)
def test_files_that_are_no_configuration(content, tmp_path):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"config\.json"):
        Qwen2Config.from_file(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.json is not there"):
        Qwen2Config.from_file(tmp_path)


def test_a_dense_model_ignores_the_fields_of_experts():
    """transformers writes none, but derivatives leave remnants behind."""
    config = Qwen2Config.from_dict(RELEASED | {"decoder_sparse_step": 0, "num_experts": 60})
    assert not any(config.is_sparse(layer) for layer in range(28))
    assert config.model_type == "qwen2"


ROPE = ["type", "rope_type", "factor", "truncate", "partial_rotary_factor", "rope_theta"]
ROPE += ["beta_fast", "attention_factor", "original_max_position_embeddings"]
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)
FIELDS = [
    *(field.name for field in dataclasses.fields(Qwen2Config)),
    "model_type",
    "rope_parameters",
]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    st.dictionaries(st.sampled_from(FIELDS), ANY | st.just(10**400), min_size=1, max_size=3),
    st.dictionaries(st.sampled_from(ROPE), ANY | st.just("yarn"), max_size=3),
)
def test_any_values_are_a_configuration_or_refused(change, rope):
    if rope:
        change = {"rope_scaling": {"type": "yarn", "factor": 4.0} | rope} | change
    began = time.perf_counter()
    for base in (RELEASED, DENSE.to_dict(), LAYOUTS["experts"].to_dict()):
        try:
            config = Qwen2Config.from_dict(base | change)
        except ConfigError:
            continue
        assert len(config.layer_windows) == config.num_hidden_layers
        assert Qwen2Config.from_dict(json.loads(json.dumps(config.to_dict())))
    assert time.perf_counter() - began < 10
