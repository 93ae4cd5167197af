// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "open_model.hpp"

#include <filesystem>
#include <utility>

#include "../checkpoint.hpp"
#include "adapter_folder.hpp"
#include "gguf_model.hpp"
#include "hugging_face.hpp"
#include "mapped_file.hpp"
#include "named_weights.hpp"
#include "safetensors.hpp"

namespace lm {
namespace {

enum class model_format { checkpoint, gguf, hugging_face };

/// What is none of them is left to the reader of checkpoints, which says why it is not one.
model_format format_of(std::string const& path) {
  std::error_code unknown;
  if (std::filesystem::is_directory(path, unknown)) return model_format::hugging_face;
  mapped_file const file(path);
  if (gguf_file::recognises(file.bytes())) return model_format::gguf;
  if (safetensors_file::recognises(file.bytes()))
    throw failure(path +
                  ": is a safetensors file, which has weights alone; give its folder, with "
                  "the config.json");
  return model_format::checkpoint;
}

loaded_model load_alone(std::string const& path) {
  switch (format_of(path)) {
    case model_format::gguf:
      return {load_gguf(gguf_file(path)), nullptr};
    case model_format::hugging_face:
      return {load_hugging_face(path), load_recipe(path).training};
    default: {
      auto loaded = load_checkpoint(path, false);
      return {std::move(loaded.weights), std::move(loaded.training)};
    }
  }
}

narrow_weights load_narrow_alone(std::string const& path) {
  switch (format_of(path)) {
    case model_format::gguf:
      return load_narrow_gguf(gguf_file(path));
    case model_format::hugging_face:
      return load_narrow_hugging_face(path);
    default:
      return rounded(load_checkpoint(path, false).weights);
  }
}

}  // namespace

loaded_model load_model(std::string const& path, std::string const& adapters) {
  if (adapters.empty()) return load_alone(path);
  auto added = load_adapters(adapters, load_model_config(path));
  auto model = load_alone(path);
  add_adapters(added, model.weights);
  if (!added.training.is_null()) model.training = std::move(added.training);
  return model;
}

narrow_weights load_narrow_model(std::string const& path, std::string const& adapters) {
  if (adapters.empty()) return load_narrow_alone(path);
  auto const added = load_adapters(adapters, load_model_config(path));
  auto model = load_narrow_alone(path);
  add_adapters(added, model);
  return model;
}

weight_type stored_weights(std::string const& path) {
  switch (format_of(path)) {
    case model_format::gguf:
      return stored_type(gguf_file(path));
    case model_format::hugging_face:
      return stored_type(*open_safetensors_folder(path));
    default:
      return weight_type::f32;
  }
}

model_config load_model_config(std::string const& path) {
  switch (format_of(path)) {
    case model_format::gguf:
      return gguf_config(gguf_file(path));
    case model_format::hugging_face:
      return load_hugging_face_config(path);
    default:
      return load_config(path);
  }
}

}  // namespace lm
