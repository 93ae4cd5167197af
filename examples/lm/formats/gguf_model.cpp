// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "gguf_model.hpp"

#include <algorithm>
#include <cmath>
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

constexpr char const* divisors_name = "rope_freqs.weight";

/// llama3's scaling comes as a tensor of what each frequency is divided by. What it was made from
/// is not there; all published models have the numbers of Llama 3.1, and the last is the factor.
rope_scaling llama3_scaling(gguf_file const& file, tensor_info const& tensor,
                            model_config const& c) {
  auto const refuse = [&](std::string const& why) {
    throw failure(file.path() + ": tensor '" + divisors_name + "' " + why);
  };
  if (tensor.size() < 1 || tensor.size() != c.head_dim / 2)
    refuse("has " + std::to_string(tensor.size()) + " elements; should have half of a head, " +
           std::to_string(c.head_dim / 2));
  std::vector<float> divisors(static_cast<std::size_t>(tensor.size()));
  file.read(static_cast<std::size_t>(&tensor - file.tensors().data()), divisors);
  auto scaled = c;
  scaled.rope_scaling = {rope_scaling_kind::llama3, double{divisors.back()}, 1, 4, 8192};
  for (std::int32_t i = 0; i < c.head_dim / 2; ++i) {
    auto const given = double{divisors[static_cast<std::size_t>(i)]};
    auto const expected = c.rope_frequency(i) / scaled.rope_frequency(i);
    if (!(std::abs(given - expected) <= 1e-4 * expected))
      refuse("divides frequency " + std::to_string(i) + " by " + std::to_string(given) +
             "; llama3's scaling beyond 8192 tokens would by " + std::to_string(expected));
  }
  return scaled.rope_scaling;
}

/// The linear one, which files without a type mean, too.
rope_scaling linear_scaling(keys const& k) {
  std::string const type = k.has("rope.scaling.type")
                               ? std::string(k.metadata().text(k.of("rope.scaling.type")))
                               : "linear";
  if (type == "none") return {};
  if (type != "linear") k.refuse("rope.scaling.type", "is " + type + "; it must be none or linear");
  auto const factor = k.number("rope.scaling.factor", k.number("rope.scale_linear", 0));
  if (factor == 0 || factor == 1) return {};
  return {rope_scaling_kind::linear, factor};
}

/// All that concerns RoPE.
void map_rope(gguf_file const& file, keys const& k, model_config& c) {
  c.rope_theta = k.number("rope.freq_base", 10000);
  auto const turned = k.count("rope.dimension_count", c.head_dim);
  if (turned != c.head_dim)
    k.refuse("rope.dimension_count", "is " + std::to_string(turned) +
                                         "; all of a head is turned, " +
                                         std::to_string(c.head_dim));
  c.rope_scaling = linear_scaling(k);
  auto const* const divisors = file.find(divisors_name);
  if (divisors == nullptr) return;
  if (c.rope_scaling != rope_scaling{})
    k.refuse("rope.scaling.factor",
             std::string("is set beside the tensor '") + divisors_name + "'");
  c.rope_scaling = llama3_scaling(file, *divisors, c);
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

/// Rows of a projection to heads, from llama.cpp's order to ours. Its RoPE turns neighbours, ours
/// (as Hugging Face's) elements half a head apart, so its converter lays rows i and i + head_dim /
/// 2 of a head side by side. w: [heads * head_dim, cols].
template <class Element>
void separate_pairs(std::span<Element> w, std::int64_t head_dim, std::int64_t cols) {
  auto const head_size = static_cast<std::size_t>(head_dim * cols);
  std::vector<Element> head(head_size);
  for (auto rest = w; !rest.empty(); rest = rest.subspan(head_size)) {
    std::ranges::copy(rest.first(head_size), head.begin());
    for (std::int64_t row = 0; row < head_dim; ++row) {
      auto const to = row / 2 + row % 2 * (head_dim / 2);
      std::copy_n(head.begin() + row * cols, cols, rest.begin() + to * cols);
    }
  }
}

bool has_pairs(gguf_file const& file, tensor_entry const& entry) {
  return keys(file).architecture() == "llama" &&
         (entry.name.ends_with(".wq") || entry.name.ends_with(".wk"));
}

bool is_divisors(std::string const& name) { return name == divisors_name; }

/// Files of which llama.cpp reads several as one.
void refuse_parts(gguf_metadata const& metadata) {
  constexpr char const* key = "split.count";
  if (metadata.has(key) && metadata.integer(key, 0, 65535) > 1)
    metadata.refuse(key,
                    "is set; this program reads models in one file (llama-gguf-split --merge)");
}

}  // namespace

model_config gguf_config(gguf_file const& file) {
  keys const k(file);
  refuse_parts(file.metadata());
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
  map_rope(file, k, c);
  if (auto const wrong = c.check(); !wrong.empty()) throw failure(file.path() + ": " + wrong);
  return c;
}

parameters<float> load_gguf(gguf_file const& file) {
  auto const config = gguf_config(file);
  auto weights = read_weights(file, config, names(), is_divisors);
  for (auto const& entry : weights.table().entries)
    if (has_pairs(file, entry)) separate_pairs(weights.tensor(entry), config.head_dim, entry.cols);
  return weights;
}

narrow_weights load_narrow_gguf(gguf_file const& file) {
  auto const config = gguf_config(file);
  auto weights = read_narrow_weights(file, config, names(), is_divisors);
  auto const& entries = weights.table().entries;
  for (std::size_t i = 0; i < entries.size(); ++i)
    if (has_pairs(file, entries[i]))
      separate_pairs(weights.matrix(i), config.head_dim, entries[i].cols);
  return weights;
}

}  // namespace lm
