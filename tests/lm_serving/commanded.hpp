// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Commands run as a user runs them, on files of a folder that goes away: a small model, some text,
// and what was printed.
#pragma once

#include <doctest/doctest.h>

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint.hpp"
#include "command_line.hpp"
#include "report.hpp"
#include "support/capture.hpp"

namespace commanded {

namespace fs = std::filesystem;
using support::capture;

/// A folder that is gone afterwards.
class scratch_folder {
 public:
  scratch_folder() {
    auto pattern = (fs::temp_directory_path() / "strata_lm_XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~scratch_folder() { fs::remove_all(path_); }
  scratch_folder(scratch_folder const&) = delete;
  scratch_folder& operator=(scratch_folder const&) = delete;
  std::string operator/(char const* name) const { return (path_ / name).string(); }

  /// How many files and folders are in it, at any depth.
  std::ptrdiff_t entries() const {
    return std::distance(fs::recursive_directory_iterator(path_), {});
  }

 private:
  fs::path path_;
};

/// A model of four layers.
inline lm::model_config small_shape() {
  lm::model_config c;
  c.layers = 4;
  c.dim = 16;
  c.q_heads = 2;
  c.kv_heads = 1;
  c.head_dim = 16;
  c.mlp = 24;
  c.context = 16;
  return c;
}

/// Words without end: 24 KB are one and a half blocks of held-out text.
inline std::string some_text(std::size_t size) {
  std::string text;
  for (std::size_t i = 0; text.size() < size; ++i)
    text += "and the " + std::to_string(i * i % 97) + "th day was as the day before it\n";
  text.resize(size);
  return text;
}

inline void write_small_model(std::string const& path) {
  lm::parameters<float> model(small_shape());
  lm::initialise(model, 3);
  lm::save_checkpoint(path, model, {}, {});
}

inline std::string contents(std::string const& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
inline lm::json_value read_json(std::string const& path) {
  return lm::json_value::parse(contents(path));
}

inline bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

inline int run_program(std::vector<std::string> const& arguments) {
  std::vector<char const*> words = {"strata-lm"};
  for (auto const& argument : arguments) words.push_back(argument.c_str());
  return lm::run_command_line(static_cast<int>(words.size()), words.data());
}

}  // namespace commanded
