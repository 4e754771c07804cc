"""What a Qwen2 model is, in one frozen dataclass, and the ten released ones by name."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen2_book.config_checks import FULL, SLIDING, check, found, integer, number, read_json
from qwen2_book.errors import ConfigError
from qwen2_book.released import RELEASED

# What transformers assumes where a file is silent; the class below has Qwen2's own values instead.
FILE_DEFAULTS = {"rope_theta": 10_000.0, "max_window_layers": 28, "sliding_window": 4096}


@dataclass(frozen=True)
class RopeScaling:
    """YaRN's settings (arXiv:2309.00071), with the names of `rope_scaling` in `config.json`."""

    factor: float
    original_max_position_embeddings: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None  # None: 0.1 ln(factor) + 1

    def __post_init__(self) -> None:
        number(self, "factor", 1.0, 1024.0)
        integer(self, "original_max_position_embeddings", 1, 1 << 26)
        number(self, "beta_fast", 1e-6, 1e6)
        number(self, "beta_slow", 1e-6, 1e6)
        if self.attention_factor is not None:
            number(self, "attention_factor", 1e-6, 1e6)

    @classmethod
    def from_dict(cls, values: Any, max_position_embeddings: int) -> "RopeScaling | None":
        """Read `rope_scaling` (or transformers 5's `rope_parameters`); None is plain RoPE."""
        if not isinstance(values, Mapping):
            raise ConfigError(f"rope_scaling: found {values!r}, expected an object or null.")
        values = {key: value for key, value in values.items() if value is not None}
        kinds = [values.pop(name) for name in ("type", "rope_type") if name in values]
        kind = "default" if not kinds else kinds[0] if kinds[0] == kinds[-1] else kinds
        if kind == "default":
            return None
        if kind != "yarn":
            raise ConfigError(
                f"rope_scaling.rope_type: found {kind!r}, expected 'default' or 'yarn', the two "
                "that Qwen2 uses. Remove rope_scaling to run with plain rotary positions."
            )
        values.pop("rope_theta", None)
        values.setdefault("original_max_position_embeddings", max_position_embeddings)
        if values.pop("truncate", True) is not True or values.pop("partial_rotary_factor", 1) != 1:
            raise ConfigError("rope_scaling: truncate=false and partial rotation are not Qwen2's.")
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ConfigError(f"rope_scaling: unknown fields {unknown}; expected {sorted(known)}.")
        if "factor" not in values:
            raise ConfigError("rope_scaling.factor is missing; YaRN needs it (Qwen2's is 4.0).")
        return cls(**values)


@dataclass(frozen=True)
class Qwen2Config:
    """The shape and the constants of a Qwen2 model; field names are those of `config.json`.

    A dense model has `num_experts` 0. `layer_types`, where given, says for each layer whether it
    slides; otherwise the layers from `max_window_layers` on do. Neither has an effect unless
    `use_sliding_window` is true, and it is false in all ten released checkpoints.
    `sink_tokens` is this book's own addition: so many first tokens stay visible to every window.
    """

    vocab_size: int = 151_936
    hidden_size: int = 896
    intermediate_size: int = 4864
    num_hidden_layers: int = 24
    num_attention_heads: int = 14
    num_key_value_heads: int = 2
    head_dim: int = 0  # 0: hidden_size / num_attention_heads
    max_position_embeddings: int = 32_768
    rope_theta: float = 1_000_000.0
    rope_scaling: RopeScaling | None = None
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    use_sliding_window: bool = False
    sliding_window: int | None = None
    max_window_layers: int = 0
    layer_types: tuple[str, ...] | None = None
    sink_tokens: int = 0
    num_experts: int = 0
    num_experts_per_tok: int = 0
    moe_intermediate_size: int = 0
    shared_expert_intermediate_size: int = 0
    decoder_sparse_step: int = 1
    mlp_only_layers: tuple[int, ...] = ()
    norm_topk_prob: bool = False
    router_aux_loss_coef: float = 0.001
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    pad_token_id: int | None = None
    initializer_range: float = 0.02
    dtype: str = "bfloat16"

    def __post_init__(self) -> None:
        for name in ("layer_types", "mlp_only_layers", "eos_token_id"):
            if isinstance(value := getattr(self, name), list):
                object.__setattr__(self, name, tuple(value))
        if isinstance(self.rope_scaling, Mapping):
            scaling = RopeScaling.from_dict(self.rope_scaling, self.max_position_embeddings)
            object.__setattr__(self, "rope_scaling", scaling)
        if self.rope_scaling is not None and not isinstance(self.rope_scaling, RopeScaling):
            raise found("rope_scaling", self.rope_scaling, "a RopeScaling, an object or null")
        check(self)

    @property
    def model_type(self) -> str:
        """`qwen2` or `qwen2_moe`, as in `config.json`."""
        return "qwen2_moe" if self.num_experts else "qwen2"

    @property
    def layer_windows(self) -> tuple[int | None, ...]:
        """For each layer its window W in tokens (itself included), or None for full attention."""
        if not self.use_sliding_window:
            return (None,) * self.num_hidden_layers
        types = self.layer_types or tuple(
            SLIDING if layer >= self.max_window_layers else FULL
            for layer in range(self.num_hidden_layers)
        )
        return tuple(self.sliding_window if kind == SLIDING else None for kind in types)

    def is_sparse(self, layer: int) -> bool:
        """Whether this layer's feed-forward part is a mixture of experts."""
        if not self.num_experts or layer in self.mlp_only_layers:
            return False
        return (layer + 1) % self.decoder_sparse_step == 0

    def with_window(
        self, window: int | None, sink_tokens: int = 0, full_layers: int = 0
    ) -> "Qwen2Config":
        """This configuration with the window switched on (or off, None) from `full_layers` on."""
        return dataclasses.replace(
            self,
            use_sliding_window=window is not None,
            sliding_window=window,
            max_window_layers=full_layers,
            layer_types=None,
            sink_tokens=sink_tokens,
        )

    @classmethod
    def from_file(cls, path: str | Path) -> "Qwen2Config":
        """Read a `config.json`, or the one in a folder; errors name the file and the field."""
        path = Path(path)
        file = path / "config.json" if path.is_dir() else path
        values = read_json(file, ConfigError)
        try:
            return cls.from_dict(values)
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Qwen2Config":
        """Both spellings of `config.json`: as released, and as transformers 5 writes it."""
        if not isinstance(values, Mapping):
            raise ConfigError(f"found {type(values).__name__}, expected a JSON object.")
        kind = values.get("model_type")
        if kind not in ("qwen2", "qwen2_moe"):
            raise ConfigError(
                f"model_type: found {kind!r}, expected 'qwen2' or 'qwen2_moe'. This package runs "
                "the Qwen2 architecture only (Qwen1.5, Qwen2 and Qwen2.5 text models have it)."
            )
        if "quantization_config" in values:
            raise ConfigError(
                "quantization_config: this checkpoint's weights are packed. Take the unquantised "
                "checkpoint, or a GGUF file, and quantise after loading."
            )
        for name, only in (("hidden_act", "silu"), ("qkv_bias", True)):
            if values.get(name, only) != only:
                raise ConfigError(f"{name}: found {values[name]!r}, expected {only!r}.")
        silent = {name for name in ("rope_theta", "max_window_layers") if values.get(name) is None}
        values = FILE_DEFAULTS | {k: v for k, v in values.items() if k not in silent}
        if (rope := values.get("rope_parameters")) is not None:
            values["rope_scaling"] = rope
            if isinstance(rope, Mapping):
                values["rope_theta"] = rope.get("rope_theta", values["rope_theta"])
        values["dtype"] = values.get("dtype") or values.get("torch_dtype") or "float32"
        known = {field.name for field in dataclasses.fields(cls)}
        values = {key: value for key, value in values.items() if key in known}
        required = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"]
        required += ["num_attention_heads", "num_key_value_heads"]
        if kind == "qwen2_moe":
            required += ["num_experts", "num_experts_per_tok", "moe_intermediate_size"]
            required += ["shared_expert_intermediate_size"]
        else:
            values["num_experts"] = 0
        if missing := [name for name in required if values.get(name) is None]:
            raise ConfigError(f"missing {missing}: is this the config.json of a whole checkpoint?")
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        if values.get("rope_scaling") is not None:
            length = values.get("max_position_embeddings", cls.max_position_embeddings)
            values["rope_scaling"] = RopeScaling.from_dict(values["rope_scaling"], length)
        optional = {"rope_scaling", "layer_types", "sliding_window"}
        optional |= {"bos_token_id", "eos_token_id", "pad_token_id"}
        return cls(**{k: v for k, v in values.items() if v is not None or k in optional})

    def to_dict(self) -> dict[str, Any]:
        """The fields of a released `config.json`, which transformers 4 and 5 both read."""
        values = dataclasses.asdict(self)
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
        values["torch_dtype"] = values.pop("dtype")
        if self.rope_scaling:
            scaling = {k: v for k, v in values["rope_scaling"].items() if v is not None}
            values["rope_scaling"] = {"type": "yarn", "rope_type": "yarn"} | scaling
        if self.head_dim == self.hidden_size // self.num_attention_heads:
            del values["head_dim"]
        if self.use_sliding_window:  # transformers 5 has another rule for the MoE: leave no doubt
            values["layer_types"] = [SLIDING if w else FULL for w in self.layer_windows]
        if not self.sink_tokens:
            del values["sink_tokens"]
        if not self.num_experts:
            for field in MOE_FIELDS:
                del values[field]
        kept = {"rope_scaling", "layer_types", "bos_token_id", "eos_token_id", "pad_token_id"}
        values = {k: v for k, v in values.items() if v is not None or k not in kept}
        architecture = "Qwen2MoeForCausalLM" if self.num_experts else "Qwen2ForCausalLM"
        head = {"architectures": [architecture], "model_type": self.model_type}
        return head | values | {"hidden_act": "silu", "use_cache": True}

    @staticmethod
    def names() -> list[str]:
        """The ten released checkpoints."""
        return list(RELEASED)

    @classmethod
    def named(cls, name: str) -> "Qwen2Config":
        """One of the ten released configurations, by its name, such as `Qwen2-0.5B-Instruct`."""
        key = name.removeprefix("Qwen/")
        if key not in RELEASED:
            raise ConfigError(f"{name!r} is not a released Qwen2 model; there are {cls.names()}.")
        return cls(**RELEASED[key])


MOE_FIELDS = (
    *("num_experts", "num_experts_per_tok", "moe_intermediate_size", "decoder_sparse_step"),
    *("shared_expert_intermediate_size", "mlp_only_layers", "norm_topk_prob"),
    "router_aux_loss_coef",
)
