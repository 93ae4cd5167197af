// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The weights of a folder, and both into one.
#include "hugging_face.hpp"

#include <algorithm>
#include <filesystem>

#include "../output_file.hpp"
#include "hugging_face_names.hpp"
#include "safetensors.hpp"

namespace lm {
namespace {

constexpr char const* head_name = "lm_head.weight";

/// Buffers that follow from config.json; older files have them.
bool is_buffer(std::string const& name) { return name.ends_with("rotary_emb.inv_freq"); }

/// Tensors that a model may do without.
bool (*ignored(model_config const& config))(std::string const& name) {
  return config.tied ? [](std::string const& n) { return is_buffer(n) || n == head_name; }
                     : +[](std::string const& n) { return is_buffer(n); };
}

/// A head beside a tied embedding is the same or it is a mistake: transformers would take the one.
void check_tied_head(tensor_source const& source) {
  auto const* const head = source.find(head_name);
  if (head == nullptr) return;
  auto const* const embedding = source.find(detail::hugging_face_names().names.front().second);
  auto const index = [&](tensor_info const* of) {
    return static_cast<std::size_t>(of - source.tensors().data());
  };
  bool same = head->shape == embedding->shape;
  std::vector<float> beside;
  if (same)
    read_in_parts(source, index(head), [&](std::int64_t first, std::span<float const> part) {
      beside.resize(part.size());
      source.read_part(index(embedding), first, beside);
      same = same && std::ranges::equal(beside, part);
    });
  if (!same)
    throw failure(source.path() + ": tensor '" + head_name +
                  "' is not the embedding, and config.json has tie_word_embeddings");
}

/// What computes the same: Qwen3 where queries and keys are normed, Mistral where there is a window
/// or heads that do not divide the width, which Llama demands.
char const* architecture_of(model_config const& c) {
  if (c.qk_norm) return "Qwen3ForCausalLM";
  return c.window > 0 || c.dim % c.q_heads != 0 ? "MistralForCausalLM" : "LlamaForCausalLM";
}

/// All that concerns RoPE, the other way: in both places where versions of transformers look.
void write_rope(model_config const& c, nlohmann::ordered_json& json) {
  auto const& s = c.rope_scaling;
  bool const scaled = s.kind != rope_scaling_kind::none;
  nlohmann::ordered_json rope = {{"rope_type", scaled ? name_of(s.kind) : "default"}};
  if (scaled) rope["factor"] = s.factor;
  if (s.kind == rope_scaling_kind::llama3) {
    rope["low_freq_factor"] = s.low;
    rope["high_freq_factor"] = s.high;
    rope["original_max_position_embeddings"] = s.original_context;
  }
  json["rope_theta"] = c.rope_theta;
  if (scaled) json["rope_scaling"] = rope;
  rope["rope_theta"] = c.rope_theta;
  json["rope_parameters"] = rope;
}

nlohmann::ordered_json config_json(model_config const& c, weight_type type,
                                   std::vector<std::int32_t> const& ends) {
  std::string const architecture = architecture_of(c);
  auto model_type = architecture.substr(0, architecture.find("For"));
  model_type.front() = static_cast<char>(model_type.front() - 'A' + 'a');
  auto const dtype = type == weight_type::f32 ? "float32" : "bfloat16";
  nlohmann::ordered_json json = {{"architectures", nlohmann::ordered_json::array({architecture})},
                                 {"model_type", model_type},
                                 {"torch_dtype", dtype},
                                 {"dtype", dtype},
                                 {"hidden_size", c.dim},
                                 {"intermediate_size", c.mlp},
                                 {"num_hidden_layers", c.layers},
                                 {"num_attention_heads", c.q_heads},
                                 {"num_key_value_heads", c.kv_heads},
                                 {"head_dim", c.head_dim},
                                 {"hidden_act", "silu"},
                                 {"max_position_embeddings", c.context},
                                 {"rms_norm_eps", c.norm_epsilon},
                                 {"vocab_size", c.vocab},
                                 {"tie_word_embeddings", c.tied},
                                 {"attention_bias", false}};
  write_rope(c, json);
  if (c.window > 0 || model_type == "mistral")
    json["sliding_window"] = c.window > 0 ? nlohmann::ordered_json(c.window) : nullptr;
  if (model_type == "qwen3") {
    json["use_sliding_window"] = c.window > 0;
    json["max_window_layers"] = c.window > 0 ? 0 : c.layers;
  }
  // Else Llama's are 1 and 2, which bytes are as well, and other tokenizers' may be.
  json["bos_token_id"] = nullptr;
  json["eos_token_id"] = nullptr;
  if (ends.size() == 1) json["eos_token_id"] = ends.front();
  if (ends.size() > 1) json["eos_token_id"] = ends;
  return json;
}

std::vector<tensor_to_write> tensors_of(parameters<float> const& weights) {
  std::vector<tensor_to_write> tensors;
  for (auto const& entry : weights.table().entries)
    tensors.push_back(
        {detail::hugging_face_names().of(entry), shape_of(entry), weights.tensor(entry)});
  return tensors;
}

}  // namespace

nlohmann::ordered_json to_json(routing_recipe const& recipe) {
  return {{"training", recipe.training}, {"strategies", recipe.strategies}};
}

parameters<float> load_hugging_face(std::string const& folder) {
  auto const config = load_hugging_face_config(folder);
  auto const source = open_safetensors_folder(folder);
  auto weights = read_weights(*source, config, detail::hugging_face_names(), ignored(config));
  if (config.tied) check_tied_head(*source);
  return weights;
}

narrow_weights load_narrow_hugging_face(std::string const& folder) {
  auto const config = load_hugging_face_config(folder);
  auto const source = open_safetensors_folder(folder);
  auto weights =
      read_narrow_weights(*source, config, detail::hugging_face_names(), ignored(config));
  if (config.tied) check_tied_head(*source);
  return weights;
}

void save_hugging_face(std::string const& folder, parameters<float> const& weights,
                       routing_recipe const& recipe, weight_type type,
                       std::vector<std::int32_t> const& ends) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw failure(folder + ": " + error.message());
  auto json = config_json(weights.config(), type, ends);
  json["strata"] = to_json(recipe);
  auto const text = json.dump(2) + "\n";
  // "pt" is what transformers asks of a file before it reads it.
  write_safetensors(folder + "/model.safetensors", tensors_of(weights), type,
                    {{"format", "pt"}, {"strata", to_json(recipe).dump()}});
  write_text(folder + "/config.json", text);
}

}  // namespace lm
