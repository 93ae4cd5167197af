# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Models as GGUF files, as llama.cpp's converter writes them, for the scripts that make fixtures."""
import gguf
import numpy


def pairs_side_by_side(weights, heads):
    """Rows of a projection to heads in the order that llama.cpp's RoPE wants: LlamaModel.permute of
    its convert_hf_to_gguf.py."""
    rows = weights.shape[0] // heads // 2
    return weights.reshape(heads, 2, rows, -1).swapaxes(1, 2).reshape(weights.shape)


def begin(path, architecture, config):
    """A writer that knows the sizes of a model of transformers."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    return writer


def add_weights(writer, architecture, config, weights):
    """weights: arrays by transformers' names. Matrices stay as they are; norms are in F32."""
    arch = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen3": gguf.MODEL_ARCH.QWEN3}[architecture]
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for name, values in weights.items():
        if architecture == "llama" and "q_proj" in name:
            values = pairs_side_by_side(values, config.num_attention_heads)
        if architecture == "llama" and "k_proj" in name:
            values = pairs_side_by_side(values, config.num_key_value_heads)
        name = names.get_name(name, try_suffixes=(".weight",))
        writer.add_tensor(name, values if values.ndim > 1 else values.astype(numpy.float32))


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
