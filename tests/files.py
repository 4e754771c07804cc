"""Small checkpoints on disk, for the tests of loading."""

from pathlib import Path

import numpy as np
import torch
from layouts import DENSE, random_model, replace

from qwen2_book.model import Qwen2
from qwen2_book.saving import save
from qwen2_book.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train(["a little text, 一点文字 " * 5], 270)
SMALL = replace(DENSE, vocab_size=288, num_hidden_layers=2, eos_token_id=len(TOKENIZER) - 1)


def small_folder(folder: Path, config=SMALL) -> Qwen2:
    """A whole checkpoint folder, and the model that was saved to it."""
    model = random_model(config)
    model.generation = {"eos_token_id": [len(TOKENIZER) - 1], "pad_token_id": len(TOKENIZER) - 3}
    save(model, TOKENIZER, folder)
    return model


PLAIN = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
}


def write_gguf(model: Qwen2, file: Path, architecture: str = "qwen2", kind=None) -> None:
    """A GGUF file of a model, written by the reference library; `kind` quantises the matrices."""
    import gguf

    config, tokenizer = model.config, TOKENIZER
    writer = gguf.GGUFWriter(str(file), architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    if config.rope_scaling:
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(config.rope_scaling.factor)
        writer.add_rope_scaling_orig_ctx_len(config.rope_scaling.original_max_position_embeddings)
    if config.num_experts:
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
        writer.add_expert_shared_feed_forward_length(config.shared_expert_intermediate_size)
    tokens = {i: token for token, i in (tokenizer.vocab | tokenizer.added).items()}
    names = [tokens.get(i, f"[PAD{i}]") for i in range(config.vocab_size)]
    types = [
        3 if name in tokenizer.added else 1 if i in tokens else 5 for i, name in enumerate(names)
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(names)
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(pair) for pair in tokenizer.merges])
    writer.add_eos_token_id(config.eos_token_id)
    state = {name: tensor.float().numpy() for name, tensor in model.state_dict().items()}

    def add(name: str, array: np.ndarray) -> None:
        if kind is not None and array.ndim > 1 and "norm" not in name:
            raw = gguf.quants.quantize(array, kind)
            writer.add_tensor(name, raw, raw_dtype=kind)
        else:
            writer.add_tensor(name, array)

    add("token_embd.weight", state["model.embed_tokens.weight"])
    add("output_norm.weight", state["model.norm.weight"])
    if not config.tie_word_embeddings:
        add("output.weight", state["lm_head.weight"])
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        for ours, theirs in PLAIN.items():
            for part in ("weight", "bias"):
                if (name := f"{prefix}{ours}.{part}") in state:
                    add(f"blk.{layer}.{theirs}.{part}", state[name])
        if config.is_sparse(layer):
            for part in ("gate", "up", "down"):
                experts = [
                    state[f"{prefix}mlp.experts.{e}.{part}_proj.weight"]
                    for e in range(config.num_experts)
                ]
                add(f"blk.{layer}.ffn_{part}_exps.weight", np.stack(experts))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def equal(one: Qwen2, other: Qwen2) -> bool:
    """Whether two models have the same tensors, bit for bit."""
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )
