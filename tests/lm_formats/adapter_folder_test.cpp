// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Folders of adapters: what is written comes back, and what does not belong to a model, or would
// change it otherwise than by B A, is refused with its name.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "formats/adapter_folder.hpp"
#include "formats/safetensors.hpp"
#include "lm/tiny_files.hpp"
#include "lm_formats/hf_weights.hpp"
#include "lm_formats/refusals.hpp"

using namespace formats;

namespace {

using change_of_json = std::function<void(nlohmann::json&)>;

/// Adapters of rank 2 of the fixtures' Llama.
class adapter_case {
 public:
  tiny::scratch_folder const folder{"adapters"};
  lm::model_config const shape = llama_shape();
  lm::adapter_table const table{shape, 2};
  std::vector<float> values = std::vector<float>(static_cast<std::size_t>(table.tensors.size));

  adapter_case() {
    for (auto const& e : table.tensors.entries)
      for (std::int64_t i = 0; i < e.size(); ++i)
        values[static_cast<std::size_t>(e.offset + i)] = hf_weight(e.name, i);
    lm::save_adapters(folder.path(), shape, 2, values, "the/base", {{{"step", 7}}, {"full"}});
    config_ = contents(config_path());
    tensors_ = contents(tensors_path());
  }

  nlohmann::json config() const { return nlohmann::json::parse(config_); }
  /// Loads with another adapter_config.json.
  std::string with_config(change_of_json const& change) const {
    auto json = config();
    change(json);
    put(config_path(), json.dump());
    return refusal([&] { lm::load_adapters(folder.path(), shape); });
  }
  /// Loads with other tensors: a header is as long as it was, so that data stays in place.
  std::string with_tensors(std::string const& from, std::string const& to) const {
    REQUIRE(from.size() == to.size());
    auto changed = tensors_;
    auto const at = changed.find(from);
    REQUIRE(at != std::string::npos);
    changed.replace(at, from.size(), to);
    put(config_path(), config_);
    put(tensors_path(), changed);
    return refusal([&] { lm::load_adapters(folder.path(), shape); });
  }
  std::string config_path() const { return folder.path() + "/adapter_config.json"; }
  std::string tensors_path() const { return folder.path() + "/adapter_model.safetensors"; }

 private:
  std::string config_, tensors_;
};

}  // namespace

TEST_CASE("adapter_folder: what is written comes back to the bit under PEFT's names") {
  adapter_case const c;
  auto const loaded = lm::load_adapters(c.folder.path(), c.shape);
  CHECK(loaded.values == c.values);
  CHECK(loaded.table.rank == 2);
  CHECK(loaded.table.matrices.size() == 7 * static_cast<std::size_t>(c.shape.layers));
  CHECK(loaded.training.at("step") == 7);
  CHECK(c.folder.entries() ==
        std::vector<std::string>{"adapter_config.json", "adapter_model.safetensors"});
  auto const json = c.config();
  CHECK(json.at("lora_alpha") == json.at("r"));
  CHECK(json.at("base_model_name_or_path") == "the/base");
  lm::safetensors_file const file(c.tensors_path());
  auto const* const b = file.find("base_model.model.model.layers.1.self_attn.k_proj.lora_B.weight");
  REQUIRE(b != nullptr);
  CHECK(b->shape == std::vector<std::int64_t>{c.shape.kv_dim(), 2});
}

TEST_CASE("adapter_folder: a scale is among the numbers of B and no target is added to unasked") {
  adapter_case const c;
  auto const loaded = [&](change_of_json const& change) {
    CHECK(c.with_config(change) == "");
    return lm::load_adapters(c.folder.path(), c.shape);
  };
  auto const m = c.table.matrices.front();
  auto const a = static_cast<std::size_t>(m.a), b = static_cast<std::size_t>(m.b);
  auto const half = loaded([](auto& json) { json["lora_alpha"] = 1; });
  CHECK(half.values[a + 1] == c.values[a + 1]);
  CHECK(half.values[b + 1] == c.values[b + 1] / 2);
  auto const root = loaded([](auto& json) { json["use_rslora"] = true; });
  CHECK(root.values[b + 1] == doctest::Approx(c.values[b + 1] * std::sqrt(2.0)));
  // Adapters of all are in the file: those that are not named have no place.
  auto const few = [](auto& json) { json["target_modules"] = {"q_proj"}; };
  CHECK(contains(c.with_config(few), "k_proj.lora_A.weight' has no place"));
}

TEST_CASE("adapter_folder: another kind of adapter is refused with the field") {
  adapter_case const c;
  auto const set = [&](char const* name, nlohmann::json const& value) {
    auto const why = c.with_config([&](auto& json) { json[name] = value; });
    CHECK(contains(why, c.config_path() + ": " + name + " is " + value.dump()));
    return why;
  };
  CHECK(contains(set("peft_type", "IA3"), "this program reads LORA"));
  CHECK(contains(set("r", 0), "a whole number from 1 on"));
  CHECK(contains(set("r", 9), "the most is the model's width, 8"));
  CHECK(contains(set("bias", "all"), "has no biases"));
  CHECK(contains(set("lora_alpha", "16"), "must be a number"));
  CHECK(contains(set("lora_alpha", 1e300), "a number that floats hold"));
  CHECK(contains(set("target_modules", "all-linear"), "a list of names"));
  CHECK(contains(set("target_modules", {"c_attn"}), "the model's layers have none of these"));
  CHECK(contains(set("use_dora", true), "and nothing else"));
  CHECK(contains(set("rank_pattern", {{"q_proj", 4}}), "and nothing else"));
  CHECK(contains(set("modules_to_save", {"lm_head"}), "and nothing else"));
  CHECK(contains(set("init_lora_weights", "pissa"), "changes the model"));
  CHECK(c.with_config([](auto& json) { json["alpha_pattern"] = nlohmann::json::object(); }) == "");
  CHECK(contains(c.with_config([](auto& json) { json.erase("r"); }), "r is missing"));
  CHECK(contains(c.with_config([](auto& json) { json = 3; }), "is no JSON object"));
}

TEST_CASE("adapter_folder: tensors of another model or rank are refused with name and size") {
  adapter_case const c;
  auto const wider = c.with_config([](auto& json) { json["r"] = 3; });
  CHECK(contains(wider,
                 "tensor 'base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight' has "
                 "shape [2, 8]; that of this model and r is [3, 8]"));
  auto const name = std::string("layers.1.mlp.down_proj.lora_B");
  CHECK(
      contains(c.with_tensors(name, "layers.1.mlp.down_proj.lora_C"), "lora_B.weight' is missing"));
  CHECK(
      contains(c.with_tensors(name, "layers.9.mlp.down_proj.lora_B"), "lora_B.weight' is missing"));
  auto other = c.shape;
  other.layers = 1;
  put(c.config_path(), c.config().dump());
  adapter_case const whole;
  CHECK(contains(refusal([&] { lm::load_adapters(whole.folder.path(), other); }),
                 "has no place in a model of this program"));
  put(c.tensors_path(), contents(whole.tensors_path()).substr(0, 4000));
  CHECK(!refusal([&] { lm::load_adapters(c.folder.path(), c.shape); }).empty());
  std::filesystem::remove(c.tensors_path());
  CHECK(contains(refusal([&] { lm::load_adapters(c.folder.path(), c.shape); }),
                 "adapter_model.safetensors: No such file"));
}
