// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "gguf_model.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "../failure.hpp"
#include "named_weights.hpp"

namespace lm {
namespace {

/// Keys of one architecture: llama.block_count.
class keys {
 public:
  explicit keys(gguf_file const& file)
      : metadata_(file.metadata()), architecture_(metadata_.text("general.architecture")) {
    if (architecture_ != "llama" && architecture_ != "qwen3")
      metadata_.refuse("general.architecture",
                       "is " + architecture_ + "; this program reads llama and qwen3");
  }

  gguf_metadata const& metadata() const noexcept { return metadata_; }
  std::string const& architecture() const noexcept { return architecture_; }
  std::string of(char const* name) const { return architecture_ + "." + name; }
  bool has(char const* name) const { return metadata_.has(of(name)); }

  /// From 1 on.
  std::int32_t count(char const* name) const {
    constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
    return static_cast<std::int32_t>(metadata_.integer(of(name), 1, most));
  }
  std::int32_t count(char const* name, std::int32_t otherwise) const {
    return has(name) ? count(name) : otherwise;
  }
  double number(char const* name, double otherwise) const {
    return has(name) ? metadata_.number(of(name)) : otherwise;
  }
  [[noreturn]] void refuse(char const* name, std::string const& why) const {
    metadata_.refuse(of(name), why);
  }

 private:
  gguf_metadata const& metadata_;
  std::string architecture_;
};

/// Of other models that llama.cpp calls llama, too.
void refuse_what_is_not_computed(keys const& k) {
  for (char const* const name :
       {"expert_count", "attention.scale", "attention.clamp_kqv", "attention.max_alibi_bias",
        "attention.shared_kv_layers", "attention.sliding_window_pattern", "logit_scale",
        "residual_scale", "embedding_scale", "attn_logit_softcapping", "final_logit_softcapping"})
    if (auto const* const value = k.metadata().find(k.of(name))) {
      auto const set = [](std::byte b) { return b != std::byte{0}; };
      if (std::ranges::any_of(value->bytes, set))
        k.refuse(name, "is set; the model of this program has no such thing");
    }
}

/// All that concerns RoPE. Factors for each frequency are a tensor, rope_freqs.weight.
void map_rope(keys const& k, model_config& c) {
  c.rope_theta = k.number("rope.freq_base", 10000);
  auto const turned = k.count("rope.dimension_count", c.head_dim);
  if (turned != c.head_dim)
    k.refuse("rope.dimension_count", "is " + std::to_string(turned) +
                                         "; all of a head is turned, " +
                                         std::to_string(c.head_dim));
  if (!k.has("rope.scaling.type")) return;
  auto const type = k.metadata().text(k.of("rope.scaling.type"));
  if (type != "none")
    k.refuse("rope.scaling.type", "is " + std::string(type) + "; it must be none");
}

tensor_names const& names() {
  static tensor_names const names = {"blk.",
                                     {{"embedding", "token_embd.weight"},
                                      {"attention_norm", "attn_norm.weight"},
                                      {"wq", "attn_q.weight"},
                                      {"wk", "attn_k.weight"},
                                      {"wv", "attn_v.weight"},
                                      {"q_norm", "attn_q_norm.weight"},
                                      {"k_norm", "attn_k_norm.weight"},
                                      {"wo", "attn_output.weight"},
                                      {"mlp_norm", "ffn_norm.weight"},
                                      {"w_gate", "ffn_gate.weight"},
                                      {"w_up", "ffn_up.weight"},
                                      {"w_down", "ffn_down.weight"},
                                      {"final_norm", "output_norm.weight"},
                                      {"head", "output.weight"}}};
  return names;
}

/// Rows of a projection to heads, from llama.cpp's order to ours. Its RoPE turns neighbours, ours (as
/// Hugging Face's) elements half a head apart, so its converter lays rows i and i + head_dim / 2 of a
/// head side by side. w: [heads * head_dim, cols].
void separate_pairs(std::span<float> w, std::int64_t head_dim, std::int64_t cols) {
  auto const head_size = static_cast<std::size_t>(head_dim * cols);
  std::vector<float> head(head_size);
  for (auto rest = w; !rest.empty(); rest = rest.subspan(head_size)) {
    std::ranges::copy(rest.first(head_size), head.begin());
    for (std::int64_t row = 0; row < head_dim; ++row) {
      auto const to = row / 2 + row % 2 * (head_dim / 2);
      std::copy_n(head.begin() + row * cols, cols, rest.begin() + to * cols);
    }
  }
}

}  // namespace

model_config gguf_config(gguf_file const& file) {
  keys const k(file);
  refuse_what_is_not_computed(k);
  auto const* const embedding = file.find(names().names.front().second);
  if (embedding == nullptr || embedding->shape.size() != 2)
    throw failure(file.path() + ": tensor 'token_embd.weight' is missing or no matrix");
  model_config c;
  c.layers = k.count("block_count");
  c.dim = k.count("embedding_length");
  c.q_heads = k.count("attention.head_count");
  c.kv_heads = k.count("attention.head_count_kv", c.q_heads);
  if (!k.has("attention.key_length") && c.dim % c.q_heads != 0)
    k.refuse("attention.head_count", "does not divide embedding_length, " + std::to_string(c.dim));
  c.head_dim = k.count("attention.key_length", c.dim / c.q_heads);
  if (auto const v = k.count("attention.value_length", c.head_dim); v != c.head_dim)
    k.refuse(
        "attention.value_length",
        "is " + std::to_string(v) + "; it must be as that of keys, " + std::to_string(c.head_dim));
  c.mlp = k.count("feed_forward_length");
  c.vocab = static_cast<std::int32_t>(
      std::min<std::int64_t>(embedding->shape.front(), std::numeric_limits<std::int32_t>::max()));
  c.context = k.count("context_length");
  c.norm_epsilon = k.metadata().number(k.of("attention.layer_norm_rms_epsilon"));
  c.qk_norm = k.architecture() == "qwen3";
  c.tied = file.find(names().names.back().second) == nullptr;
  c.window = static_cast<std::int32_t>(
      k.has("attention.sliding_window")
          ? k.metadata().integer(k.of("attention.sliding_window"), 0, 1 << 24)
          : 0);
  map_rope(k, c);
  if (auto const wrong = c.check(); !wrong.empty()) throw failure(file.path() + ": " + wrong);
  return c;
}

parameters<float> load_gguf(gguf_file const& file) {
  auto const config = gguf_config(file);
  auto weights = read_weights(file, config, names(), [](std::string const&) { return false; });
  if (keys(file).architecture() == "llama")
    for (auto const& entry : weights.table().entries)
      if (entry.name.ends_with(".wq") || entry.name.ends_with(".wk"))
        separate_pairs(weights.tensor(entry), config.head_dim, entry.cols);
  return weights;
}

}  // namespace lm
