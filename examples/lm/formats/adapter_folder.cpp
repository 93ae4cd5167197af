// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "adapter_folder.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <utility>

#include "../adapters.hpp"
#include "../checkpoint.hpp"
#include "../fit.hpp"
#include "../output_file.hpp"
#include "hugging_face.hpp"
#include "hugging_face_names.hpp"
#include "json_fields.hpp"
#include "named_weights.hpp"
#include "safetensors.hpp"
#include "safetensors_writer.hpp"

namespace lm {
namespace {

/// "model.layers.3.self_attn.q_proj": what PEFT calls a matrix.
std::string module_of(tensor_entry const& entry) {
  auto const name = detail::hugging_face_names().of(entry);
  return name.substr(0, name.size() - std::string_view(".weight").size());
}

std::string tensor_of(std::string const& module, char const* which) {
  return "base_model.model." + module + "." + which + ".weight";
}

/// What adapter_config.json says, as far as it decides what is computed.
struct adapter_terms {
  std::int32_t rank = 0;
  double scale = 1;
  std::vector<std::string> targets;
};

/// Fields that are off where they are missing, null, false or empty, and that change what a model
/// computes in ways that this program does not where they are not.
constexpr char const* must_be_off[] = {
    "use_dora",          "lora_bias",         "fan_in_fan_out",
    "use_qalora",        "use_bdlora",        "modules_to_save",
    "rank_pattern",      "alpha_pattern",     "layers_to_transform",
    "exclude_modules",   "layer_replication", "trainable_token_indices",
    "target_parameters", "arrow_config",      "alora_invocation_tokens",
    "kasa_config",       "monteclora_config", "velora_config"};

void refuse_other_kinds(json_fields const& f) {
  if (f.word("peft_type", "") != "LORA") f.refuse("peft_type", "this program reads LORA");
  if (f.word("bias", "none") != "none") f.refuse("bias", "the model of this program has no biases");
  for (auto const* const name : must_be_off) {
    auto const* const given = f.find(name);
    bool const off = given == nullptr || *given == strict_json(false) ||
                     ((given->is_object() || given->is_array()) && given->empty());
    if (!off) f.refuse(name, "this program adds B A to matrices of layers and nothing else");
  }
  // Others begin with another base than the file of the model has.
  auto const* const begun = f.find("init_lora_weights");
  bool const keeps_base =
      begun == nullptr || begun->is_boolean() || *begun == "gaussian" || *begun == "orthogonal";
  if (!keeps_base) f.refuse("init_lora_weights", "it changes the model that is added to");
}

adapter_terms terms_of(json_fields const& f, model_config const& config) {
  refuse_other_kinds(f);
  adapter_terms terms;
  terms.rank = f.count("r");
  if (terms.rank > config.dim)
    f.refuse("r", "the most is the model's width, " + std::to_string(config.dim));
  auto const alpha = f.number("lora_alpha");
  auto const rank = static_cast<double>(terms.rank);
  terms.scale = alpha / (f.truth("use_rslora") ? std::sqrt(rank) : rank);
  if (!std::isfinite(static_cast<float>(terms.scale)))
    f.refuse("lora_alpha", "it must be a number that floats hold");
  auto const* const targets = f.find("target_modules");
  bool const list = targets != nullptr && targets->is_array() && !targets->empty() &&
                    std::ranges::all_of(*targets, [](auto const& t) { return t.is_string(); });
  if (!list) f.refuse("target_modules", "it must be a list of names");
  targets->get_to(terms.targets);
  return terms;
}

/// As PEFT does: a name means the modules that are called so or whose last parts are.
bool is_target(std::string const& module, std::vector<std::string> const& targets) {
  return std::ranges::any_of(targets, [&](std::string const& target) {
    return module == target || module.ends_with("." + target);
  });
}

/// Leaves the matrices that are named. Throws where none is.
void keep_targets(adapter_table& table, std::vector<tensor_entry> const& entries,
                  json_fields const& f, adapter_terms const& terms) {
  std::erase_if(table.matrices, [&](adapted_matrix const& m) {
    return !is_target(module_of(entries[m.entry]), terms.targets);
  });
  if (table.matrices.empty()) f.refuse("target_modules", "the model's layers have none of these");
}

nlohmann::ordered_json training_in(safetensors_file const& file) {
  auto const found = file.metadata().find("strata");
  if (found == file.metadata().end()) return nullptr;
  auto const about = file.path() + ": strata of its __metadata__";
  auto const json = parse_strictly(found->second, about);
  auto const* const training = json_fields(json, about).find("training");
  return training == nullptr ? nlohmann::ordered_json() : nlohmann::ordered_json(*training);
}

}  // namespace

loaded_adapters load_adapters(std::string const& folder, model_config const& config) {
  auto const about = folder + "/adapter_config.json";
  auto const json = read_json_file(about);
  json_fields const fields(json, about);
  auto const terms = terms_of(fields, config);
  loaded_adapters loaded{adapter_table(config, terms.rank), {}, nullptr};
  auto const entries = make_tensor_table(config).entries;
  keep_targets(loaded.table, entries, fields, terms);

  safetensors_file const file(folder + "/adapter_model.safetensors");
  std::vector<wanted_tensor> wanted;
  for (auto const& m : loaded.table.matrices) {
    auto const module = module_of(entries[m.entry]);
    wanted.push_back({tensor_of(module, "lora_A"), {terms.rank, m.in}});
    wanted.push_back({tensor_of(module, "lora_B"), {m.out, terms.rank}});
  }
  auto const found = find_tensors(
      file, wanted, [](std::string const&) { return false; }, "that of this model and r");
  loaded.training = training_in(file);
  auto const size = loaded.table.tensors.size;
  require_fit(size * static_cast<std::int64_t>(sizeof(float)), available_memory(),
              "the adapters of " + folder, "this machine");
  loaded.values.resize(static_cast<std::size_t>(size));
  auto const read = [&](std::size_t which, std::int64_t at, std::int64_t count) {
    auto const to = std::span(loaded.values)
                        .subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(count));
    file.read(found[which], to);
    return to;
  };
  for (std::size_t i = 0; i < loaded.table.matrices.size(); ++i) {
    auto const& m = loaded.table.matrices[i];
    read(2 * i, m.a, terms.rank * m.in);
    for (auto& b : read(2 * i + 1, m.b, m.out * terms.rank))
      b = static_cast<float>(terms.scale * double{b});
  }
  return loaded;
}

void add_adapters(loaded_adapters const& adapters, parameters<float>& model) {
  use_single_threaded_blas();
  for (auto const& m : adapters.table.matrices)
    add_adapter(m, adapters.table.rank, adapters.values.data(), model.values().data() + m.weight);
}

void add_adapters(loaded_adapters const& adapters, narrow_weights& model) {
  use_single_threaded_blas();
  std::vector<float> sum(static_cast<std::size_t>(adapters.table.largest()));
  for (auto const& m : adapters.table.matrices) {
    auto const of_matrix = std::span(sum).first(static_cast<std::size_t>(m.size()));
    std::ranges::transform(model.matrix(m.entry), of_matrix.begin(),
                           [](strata::bfloat16 x) { return strata::to_float(x); });
    add_adapter(m, adapters.table.rank, adapters.values.data(), sum.data());
    model.set(m.entry, 0, of_matrix);
  }
}

namespace {

nlohmann::ordered_json config_of(std::int64_t rank, std::string const& base,
                                 std::vector<std::string> const& targets) {
  return {{"peft_type", "LORA"},
          {"task_type", "CAUSAL_LM"},
          {"base_model_name_or_path", base},
          {"r", rank},
          {"lora_alpha", rank},
          {"lora_dropout", 0.0},
          {"target_modules", targets},
          {"bias", "none"},
          {"fan_in_fan_out", false},
          {"inference_mode", true}};
}

}  // namespace

void save_adapters(std::string const& folder, model_config const& config, std::int64_t rank,
                   std::span<float const> values, std::string const& base,
                   routing_recipe const& recipe) {
  adapter_table const table(config, rank);
  auto const entries = make_tensor_table(config).entries;
  std::vector<tensor_to_write> tensors;
  std::vector<std::string> targets;
  auto const part = [&](std::int64_t at, std::int64_t count) {
    return values.subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(count));
  };
  for (auto const& m : table.matrices) {
    auto const module = module_of(entries[m.entry]);
    tensors.push_back({tensor_of(module, "lora_A"), {rank, m.in}, part(m.a, rank * m.in)});
    tensors.push_back({tensor_of(module, "lora_B"), {m.out, rank}, part(m.b, m.out * rank)});
    auto target = module.substr(module.rfind('.') + 1);
    if (std::ranges::find(targets, target) == targets.end()) targets.push_back(std::move(target));
  }
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw failure(folder + ": " + error.message());
  write_safetensors(folder + "/adapter_model.safetensors", tensors, weight_type::f32,
                    {{"format", "pt"}, {"strata", to_json(recipe).dump()}});
  auto const text = config_of(rank, base, targets).dump(2) + "\n";
  write_text(folder + "/adapter_config.json", text);
}

}  // namespace lm
