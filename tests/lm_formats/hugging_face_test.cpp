// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Folders that transformers wrote, and those that we write; what the model does not compute is
// refused by its field.
#include <doctest/doctest.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "formats/hugging_face.hpp"
#include "formats/safetensors.hpp"
#include "lm/tiny_files.hpp"
#include "lm_formats/hf_weights.hpp"
#include "lm_formats/refusals.hpp"

using namespace formats;
using json = lm::strict_json;

namespace {

json config_of(char const* folder) {
  return json::parse(contents(fixture(folder) + "/config.json"));
}

lm::model_config mapped(json const& config) {
  return lm::config_from_hugging_face(config, "config.json");
}

/// A config with one field another one; null takes it out.
json with(json config, char const* field, json const& value) {
  config[field] = value;
  return config;
}
json without(json config, char const* field) {
  config.erase(field);
  return config;
}
std::string refused_config(json const& config) {
  return refusal([&] { mapped(config); });
}

/// A copy of a fixture, to be spoilt.
struct spoilt_folder {
  tiny::scratch_folder folder{"hf"};
  explicit spoilt_folder(char const* name) {
    for (auto const& entry : std::filesystem::directory_iterator(fixture(name)))
      std::filesystem::copy(entry.path(), folder.path());
  }
  std::string operator/(char const* name) const { return folder.path() + "/" + name; }
  std::string refused() const {
    return refusal([&] { lm::load_hugging_face(folder.path()); });
  }
  /// Another header of the same length, or a shorter one.
  void replace(std::string const& from, std::string const& to) const {
    auto bytes = contents(*this / "model.safetensors");
    auto const at = bytes.find(from);
    REQUIRE(at != std::string::npos);
    bytes.replace(at, from.size(), to);
    put(*this / "model.safetensors", bytes);
  }
};

}  // namespace

TEST_CASE("Hugging Face: folders that transformers wrote") {
  CHECK(lm::load_hugging_face_config(fixture("llama")) == llama_shape());
  CHECK(lm::load_hugging_face_config(fixture("mistral")) == mistral_shape());
  CHECK(lm::load_hugging_face_config(fixture("qwen3")) == qwen3_shape());
  for (auto const* const folder : {"llama", "mistral", "qwen3"}) {
    CAPTURE(folder);
    check_as_hf(lm::load_hugging_face(fixture(folder)));
  }
  CHECK(lm::load_recipe(fixture("llama")).strategies.empty());
}

TEST_CASE("Hugging Face: fields in their old places, and those that are missing") {
  auto llama = without(config_of("llama"), "rope_parameters");
  CHECK(mapped(llama).rope_theta == 10000);
  CHECK(mapped(with(llama, "rope_theta", 500000)).rope_theta == 500000);
  CHECK(mapped(with(llama, "rope_scaling", nullptr)).rope_theta == 10000);
  CHECK(mapped(without(llama, "head_dim")).head_dim == 2);
  CHECK(mapped(with(llama, "head_dim", nullptr)).head_dim == 2);
  CHECK(mapped(without(llama, "num_key_value_heads")).kv_heads == 4);
  CHECK(!mapped(without(llama, "tie_word_embeddings")).tied);
  CHECK(mapped(without(llama, "rms_norm_eps")).norm_epsilon == 1e-6);
  auto const mistral = config_of("mistral");
  CHECK(mapped(without(mistral, "sliding_window")).window == 4096);
  CHECK(mapped(with(mistral, "sliding_window", nullptr)).window == 0);
  CHECK(contains(refused_config(without(mistral, "num_key_value_heads")),
                 "--kv-heads is 8; it must lie between 1 and 4"));
  auto const qwen3 = config_of("qwen3");
  CHECK(mapped(without(qwen3, "head_dim")).head_dim == 128);
  auto sliding =
      without(with(with(qwen3, "use_sliding_window", true), "sliding_window", 7), "layer_types");
  CHECK(mapped(with(sliding, "max_window_layers", 0)).window == 7);
  CHECK(mapped(with(sliding, "max_window_layers", 2)).window == 0);
  CHECK(mapped(with(with(sliding, "max_window_layers", 1), "use_sliding_window", false)).window ==
        0);
  CHECK(contains(refused_config(with(sliding, "max_window_layers", 1)),
                 "1 of 2 layers have a window"));
}

TEST_CASE("Hugging Face: what the model does not compute is refused by its field and value") {
  auto const llama = config_of("llama");
  struct lie {
    char const* field;
    json value;
    char const* sentence;
  };
  for (auto const& one : {
           lie{"architectures", {"GemmaForCausalLM"}, "[\"GemmaForCausalLM\"]; this program reads"},
           lie{"architectures", "LlamaForCausalLM", "\"LlamaForCausalLM\"; this program reads"},
           lie{"architectures", json::array(), "[]; this program reads"},
           lie{"attention_bias", true, "true; the model of this program has no biases"},
           lie{"attention_bias", 1, "1; it must be true or false"},
           lie{"mlp_bias", true, "true; the model of this program has no biases"},
           lie{"hidden_act", "gelu", "\"gelu\"; it must be silu"},
           lie{"quantization_config", {{"bits", 4}}, "{\"bits\":4}; weights must be F32"},
           lie{"sliding_window", 4096, "4096; LlamaForCausalLM has none"},
           lie{"partial_rotary_factor", 0.5, "0.5; all of a head is turned"},
           lie{"num_hidden_layers", 0, "0; it must be a whole number from 1 on"},
           lie{"num_hidden_layers", -1, "-1; it must be a whole number"},
           lie{"num_hidden_layers", 2.0, "2.0; it must be a whole number"},
           lie{"num_hidden_layers", "2", "\"2\"; it must be a whole number"},
           lie{"num_hidden_layers", 4294967298, "4294967298; it must be a whole number"},
           lie{"num_hidden_layers", nullptr, "null; it must be a whole number"},
           lie{"hidden_size", 18446744073709551615U, "18446744073709551615; it must be"},
           lie{"rms_norm_eps", "small", "\"small\"; it must be a number"},
           lie{"layer_types", {"full_attention", "sliding_attention"}, "; 1 of 2 layers have"},
           lie{"layer_types", {"sliding_attention", "sliding_attention"}, "; the model has no"},
           lie{"layer_types", {"full_attention"}, "; it must be a list of num_hidden_layers"},
           lie{"layer_types", {"full_attention", "chunked"}, "; they must be full_attention or"},
           lie{"rope_theta", 10000, "10000; rope_parameters has another"},
       }) {
    CAPTURE(one.field);
    CAPTURE(one.sentence);
    auto const why = refused_config(with(llama, one.field, one.value));
    CAPTURE(why);
    CHECK(why.starts_with("config.json: " + std::string(one.field) + " is "));
    CHECK(contains(why, one.sentence));
  }
  CHECK(
      contains(refused_config(without(llama, "vocab_size")), "vocab_size is missing; it must be"));
  CHECK(contains(refused_config(with(llama, "num_attention_heads", 3)), "--kv-heads is 2"));
  CHECK(contains(refused_config(without(with(llama, "num_attention_heads", 3), "head_dim")),
                 "head_dim is missing; num_attention_heads does not divide hidden_size"));
  auto const scaled = with(llama, "rope_parameters", {{"rope_type", "yarn"}, {"factor", 4}});
  CHECK(contains(refused_config(scaled), "config.json: rope_parameters: rope_type is \"yarn\""));
  CHECK(contains(refused_config(with(llama, "rope_scaling", {{"type", "dynamic"}})),
                 "rope_scaling: type is \"dynamic\""));
  CHECK(contains(refused_config(json::array()), "config.json: is no JSON object"));
}

TEST_CASE("Hugging Face: tensors that are missing, misshapen or too many") {
  {
    spoilt_folder const f("llama");
    f.replace("self_attn.v_proj.weight", "self_attn.v_proj.wEIGHT");
    CHECK(contains(f.refused(), "tensor 'model.layers.0.self_attn.v_proj.weight' is missing"));
  }
  {
    spoilt_folder const f("llama");
    f.replace("[12,8]", "[8,12]");
    CHECK(contains(f.refused(), "has shape [8, 12]; the model's is [12, 8]"));
  }
  {
    spoilt_folder const f("qwen3");  // as a Llama it has tensors too many
    auto config = config_of("qwen3");
    config["architectures"] = {"LlamaForCausalLM"};
    config.erase("sliding_window");
    put(f / "config.json", config.dump());
    CHECK(contains(f.refused(), "k_norm.weight' has no place in a model of this program"));
  }
  {
    spoilt_folder const f("qwen3");  // tied, but its head is not its embedding
    put(f / "config.json", with(config_of("qwen3"), "tie_word_embeddings", true).dump());
    CHECK(contains(f.refused(), "tensor 'lm_head.weight' is not the embedding"));
  }
  {
    spoilt_folder const f("llama");
    put(f / "config.json", "{\"a\":1,\"a\":2}");
    CHECK(contains(f.refused(), "config.json has 'a' more than once"));
    std::filesystem::remove(f / "config.json");
    CHECK(contains(f.refused(), "config.json: No such file"));
  }
}

TEST_CASE("Hugging Face: buffers and a head that is the embedding are passed over") {
  auto weights = lm::parameters<float>(llama_shape());
  fill_as_hf(weights);
  tiny::scratch_folder const folder("hf_buffers");
  lm::save_hugging_face(folder.path(), weights, {});
  std::vector<lm::tensor_to_write> tensors;
  for (auto const& entry : weights.table().entries) {
    std::vector<std::int64_t> shape = {entry.rows, entry.cols};
    if (entry.role == lm::tensor_role::norm) shape = {entry.cols};
    tensors.push_back({hf_name(entry.name), shape, weights.tensor(entry)});
  }
  float const buffer[] = {1, 0.5F};
  tensors.push_back({"lm_head.weight", {16, 8}, tensors.front().values});
  tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", {2}, buffer});
  lm::write_safetensors(folder.path() + "/model.safetensors", tensors, lm::weight_type::f32, {});
  check_as_hf(lm::load_hugging_face(folder.path()));
}

TEST_CASE("Hugging Face: what is saved is read again, with its recipe") {
  auto odd = mistral_shape();  // Llama would demand that heads divide the width
  odd.window = 0;
  odd.q_heads = 3;
  odd.kv_heads = 3;
  auto sliding = qwen3_shape();
  sliding.window = 3;
  for (auto const& shape : {llama_shape(), mistral_shape(), qwen3_shape(), odd, sliding}) {
    lm::parameters<float> weights(shape);
    fill_as_hf(weights);
    for (auto const type : {lm::weight_type::f32, lm::weight_type::bf16}) {
      tiny::scratch_folder const folder("hf_saved");
      auto const path = folder.path() + "/a/b";
      lm::save_hugging_face(path, weights, {{{"routing", "rcla:0.5"}}, {"full", "every:4"}}, type);
      CHECK(lm::load_hugging_face_config(path) == shape);
      check_as_hf(lm::load_hugging_face(path));
      auto const recipe = lm::load_recipe(path);
      CHECK(recipe.training.at("routing") == "rcla:0.5");
      CHECK(recipe.strategies == std::vector<std::string>{"full", "every:4"});
      lm::safetensors_file const file(path + "/model.safetensors");
      CHECK(file.tensors().front().type == (type == lm::weight_type::f32 ? "F32" : "BF16"));
      CHECK(file.metadata().at("format") == "pt");
      CHECK(json::parse(file.metadata().at("strata")).at("training").at("routing") == "rcla:0.5");
    }
  }
  lm::parameters<float> const weights(llama_shape());
  CHECK(contains(refusal([&] { lm::save_hugging_face("/proc/x", weights, {}); }), "/proc/x: "));
}

TEST_CASE("Hugging Face: a recipe that is none") {
  spoilt_folder const f("llama");
  auto const recipe = [&](json const& strata) {
    put(f / "config.json", with(config_of("llama"), "strata", strata).dump());
    return refusal([&] { lm::load_recipe(f.folder.path()); });
  };
  CHECK(recipe(nullptr) == "");
  CHECK(recipe({{"strategies", json::array()}}) == "");
  CHECK(contains(recipe(7), "config.json: strata: is no JSON object"));
  CHECK(contains(recipe({{"strategies", "full"}}), "strategies is \"full\"; they must be a list"));
  CHECK(contains(recipe({{"strategies", {1}}}), "they must be a list of strings"));
}
