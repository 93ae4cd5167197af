// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// config.json.
#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <system_error>
#include <vector>

#include "../failure.hpp"
#include "hugging_face.hpp"
#include "json_fields.hpp"

namespace lm {
namespace {

enum class architecture { llama, mistral, qwen3 };

architecture architecture_of(json_fields const& f) {
  auto const* const list = f.find("architectures");
  auto const name =
      list != nullptr && list->is_array() && list->size() == 1 && (*list)[0].is_string()
          ? (*list)[0].get<std::string>()
          : "";
  if (name == "LlamaForCausalLM") return architecture::llama;
  if (name == "MistralForCausalLM") return architecture::mistral;
  if (name == "Qwen3ForCausalLM") return architecture::qwen3;
  f.refuse("architectures",
           "this program reads LlamaForCausalLM, MistralForCausalLM and Qwen3ForCausalLM");
}

void refuse_what_is_not_computed(json_fields const& f) {
  for (char const* const bias : {"attention_bias", "mlp_bias"})
    if (f.truth(bias)) f.refuse(bias, "the model of this program has no biases");
  auto const act = f.word("hidden_act", "silu");
  if (act != "silu" && act != "swish") f.refuse("hidden_act", "it must be silu");
  if (f.find("quantization_config") != nullptr)
    f.refuse("quantization_config", "weights must be F32, F16 or BF16");
}

/// The scaling in `rope_scaling` or `rope_parameters`, whose first versions named its type `type`.
/// f: what lies around.
rope_scaling scaling_of(json_fields const& rope, json_fields const& f) {
  auto const* const name = rope.find("rope_type") != nullptr ? "rope_type" : "type";
  auto const type = rope.word(name, "default");
  rope_scaling s;
  if (type == "default") return s;
  if (type == "linear") s.kind = rope_scaling_kind::linear;
  if (type == "llama3") s.kind = rope_scaling_kind::llama3;
  if (s.kind == rope_scaling_kind::none) rope.refuse(name, "it must be default, linear or llama3");
  s.factor = rope.number("factor");
  if (s.kind == rope_scaling_kind::linear) return s;
  s.low = rope.number("low_freq_factor");
  s.high = rope.number("high_freq_factor");
  constexpr auto* tokens = "original_max_position_embeddings";
  s.original_context = f.find(tokens) != nullptr      ? f.count(tokens)
                       : rope.find(tokens) != nullptr ? rope.count(tokens)
                                                      : f.count("max_position_embeddings");
  return s;
}

/// All that concerns RoPE: since version 5 transformers keeps it in `rope_parameters`, before that
/// in `rope_theta` and `rope_scaling`.
void map_rope(json_fields const& f, model_config& c) {
  bool found = false;
  for (char const* const place : {"rope_scaling", "rope_parameters"}) {
    if (f.find(place) == nullptr) continue;
    auto const rope = f.inside(place);
    for (char const* const kind : {"full_attention", "sliding_attention"})
      if (rope.has(kind)) rope.refuse(kind, "all layers must be turned alike");
    if (rope.number("partial_rotary_factor", 1) != 1)
      rope.refuse("partial_rotary_factor", "all of a head is turned");
    auto const scaling = scaling_of(rope, f);
    if (found && scaling != c.rope_scaling) f.refuse(place, "rope_scaling says otherwise");
    c.rope_scaling = scaling;
    c.rope_theta = rope.number("rope_theta", c.rope_theta);
    found = true;
  }
  if (f.number("partial_rotary_factor", 1) != 1)
    f.refuse("partial_rotary_factor", "all of a head is turned");
  auto const* const now = f.find("rope_parameters");
  auto const newer = now != nullptr && now->contains("rope_theta");
  if (newer && f.find("rope_theta") != nullptr && f.number("rope_theta", 0) != c.rope_theta)
    f.refuse("rope_theta", "rope_parameters has another");
  if (!newer) c.rope_theta = f.number("rope_theta", c.rope_theta);
}

/// How many of the layers see a window.
std::int32_t sliding_layers(json_fields const& f, architecture which, std::int32_t layers) {
  auto const* const types = f.find("layer_types");
  if (types == nullptr) {
    if (which != architecture::qwen3) return layers;
    // Those from max_window_layers on.
    auto const* const first = f.find("max_window_layers");
    std::int64_t below = 28;
    if (first != nullptr && !to_count(*first, below))
      f.refuse("max_window_layers", "it must be a whole number");
    return static_cast<std::int32_t>(layers - std::min<std::int64_t>(below, layers));
  }
  if (!types->is_array() || types->size() != static_cast<std::size_t>(layers))
    f.refuse("layer_types", "it must be a list of num_hidden_layers");
  auto const sliding = std::ranges::count(*types, strict_json("sliding_attention"));
  if (sliding + std::ranges::count(*types, strict_json("full_attention")) != layers)
    f.refuse("layer_types", "they must be full_attention or sliding_attention");
  return static_cast<std::int32_t>(sliding);
}

void map_window(json_fields const& f, architecture which, model_config& c) {
  if (which == architecture::llama && f.find("sliding_window") != nullptr)
    f.refuse("sliding_window", "LlamaForCausalLM has none");
  auto const window = f.find("sliding_window") != nullptr ? f.count("sliding_window")
                      : f.has("sliding_window")           ? 0
                                                          : 4096;
  bool const on = window > 0 && which != architecture::llama &&
                  (which != architecture::qwen3 || f.truth("use_sliding_window"));
  if (!on && f.find("layer_types") == nullptr) return;
  auto const sliding = sliding_layers(f, which, c.layers);
  if (sliding != 0 && sliding != c.layers)
    f.refuse("layer_types", std::to_string(sliding) + " of " + std::to_string(c.layers) +
                                " layers have a window; all must be of one kind");
  if (!on && sliding > 0) f.refuse("layer_types", "the model has no sliding_window");
  if (sliding > 0) c.window = window;
}

}  // namespace

model_config config_from_hugging_face(strict_json const& json, std::string const& about) {
  json_fields const f(json, about);
  auto const which = architecture_of(f);
  refuse_what_is_not_computed(f);
  model_config c;
  c.layers = f.count("num_hidden_layers");
  c.dim = f.count("hidden_size");
  c.q_heads = f.count("num_attention_heads");
  auto const usual = which == architecture::mistral ? 8 : which == architecture::qwen3 ? 32 : 0;
  bool const as_q_heads = f.has("num_key_value_heads") || which == architecture::llama;
  c.kv_heads = f.count("num_key_value_heads", as_q_heads ? c.q_heads : usual);
  bool const is_free = f.find("head_dim") != nullptr || which == architecture::qwen3;
  if (!is_free && c.dim % c.q_heads != 0)
    f.refuse("head_dim", "num_attention_heads does not divide hidden_size");
  c.head_dim = f.count("head_dim", is_free ? 128 : c.dim / c.q_heads);
  c.mlp = f.count("intermediate_size");
  c.vocab = f.count("vocab_size");
  c.context = f.count("max_position_embeddings");
  c.norm_epsilon = f.number("rms_norm_eps", 1e-6);
  c.qk_norm = which == architecture::qwen3;
  c.tied = f.truth("tie_word_embeddings");
  map_rope(f, c);
  map_window(f, which, c);
  if (auto const wrong = c.check(); !wrong.empty()) throw failure(about + ": " + wrong);
  return c;
}

model_config load_hugging_face_config(std::string const& folder) {
  return config_from_hugging_face(read_json_file(folder + "/config.json"), folder + "/config.json");
}

namespace {

std::vector<std::int32_t> end_tokens(json_fields const& fields) {
  std::vector<std::int32_t> tokens;
  auto const add = [&](strict_json const& token) {
    std::int64_t id = 0;
    if (!to_count(token, id) || id > std::numeric_limits<std::int32_t>::max())
      fields.refuse("eos_token_id", "it must be a token's number, or a list of such");
    tokens.push_back(static_cast<std::int32_t>(id));
  };
  auto const* const given = fields.find("eos_token_id");
  if (given == nullptr) return tokens;
  if (given->is_array())
    for (auto const& token : *given) add(token);
  else
    add(*given);
  return tokens;
}

}  // namespace

std::vector<std::int32_t> load_end_tokens(std::string const& folder) {
  std::vector<std::int32_t> tokens;
  for (auto const* name : {"/generation_config.json", "/config.json"}) {
    std::error_code unknown;
    if (!tokens.empty() || !std::filesystem::exists(folder + name, unknown)) continue;
    auto const json = read_json_file(folder + name);
    tokens = end_tokens({json, folder + name});
  }
  return tokens;
}

routing_recipe load_recipe(std::string const& folder) {
  routing_recipe recipe;
  auto const json = read_json_file(folder + "/config.json");
  json_fields const config(json, folder + "/config.json");
  if (config.find("strata") == nullptr) return recipe;
  auto const ours = config.inside("strata");
  if (auto const* const training = ours.find("training")) recipe.training = *training;
  auto const* const strategies = ours.find("strategies");
  if (strategies == nullptr) return recipe;
  for (auto const& strategy : *strategies)
    if (!strategies->is_array() || !strategy.is_string())
      ours.refuse("strategies", "they must be a list of strings");
  recipe.strategies = strategies->get<std::vector<std::string>>();
  return recipe;
}

}  // namespace lm
