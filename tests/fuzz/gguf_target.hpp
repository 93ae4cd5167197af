// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// GGUF files. What is taken lies within its bytes, can be read to the last element, and says of
// each key and tensor what it says; as a model it is one or refused.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "failure.hpp"
#include "formats/gguf_model.hpp"
#include "fuzz/fuzz.hpp"

namespace fuzz::gguf {

enum reach { refused, taken, with_tensors, a_model, num_reaches };

/// Looks at all values by every getter: one of them fits, or the kind has none.
inline void read_values(lm::gguf_metadata const& metadata) {
  auto const fits = [](auto const& get) {
    try {
      get();
      return true;
    } catch (lm::failure const&) {
      return false;
    }
  };
  std::string_view before;
  for (auto const& [key, value] : metadata.entries()) {
    require(before < key, "keys ascend, and none is empty or there twice");
    before = key;
    auto const k = key;
    auto const& m = metadata;
    int fitting = fits([&] { static_cast<void>(m.text(k)); });
    fitting += fits([&] { static_cast<void>(m.boolean(k)); });
    fitting += fits([&] { static_cast<void>(m.number(k)); });
    fitting += fits([&] { static_cast<void>(m.integer(k, INT64_MIN, INT64_MAX)); });
    fitting += fits([&] { static_cast<void>(m.texts(k)); });
    fitting += fits([&] { static_cast<void>(m.numbers(k)); });
    fitting += fits([&] { static_cast<void>(m.integers(k)); });
    require(fitting <= 1, "a value is of one kind");
    require(m.find(k) == &value, "a key that is there is found");
  }
}

/// Every element of every tensor.
inline void read_tensors(lm::tensor_source const& file) {
  for (std::size_t i = 0; i < file.tensors().size(); ++i) {
    auto const& tensor = file.tensors()[i];
    require(file.find(tensor.name) == &tensor, "names are there once");
    std::vector<float> values(static_cast<std::size_t>(tensor.size()));
    file.read(i, values);
  }
}

inline int one_input(bytes data) {
  try {
    lm::gguf_file const file(data, "fuzz.gguf");
    read_values(file.metadata());
    read_tensors(file);
    try {
      auto const config = lm::gguf_config(file);
      require(config.check().empty(), "a config that is returned is one");
      static_cast<void>(lm::load_gguf(file));
      return a_model;
    } catch (lm::failure const&) {
      return file.tensors().empty() ? taken : with_tensors;
    }
  } catch (lm::failure const& error) {
    require(std::string_view(error.what()).starts_with("fuzz.gguf: "), "a refusal names the file");
    return refused;
  }
}

}  // namespace fuzz::gguf
