// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Files of these tests, and what is said where one is refused.
#pragma once

#include <doctest/doctest.h>

#include <cstddef>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <vector>

#include "failure.hpp"
#include "formats/tensor_source.hpp"

namespace formats {

inline std::string fixture(char const* name) { return std::string(STRATA_LM_FIXTURES "/") + name; }

inline std::string contents(std::string const& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE(file.good());
  return {std::istreambuf_iterator<char>(file), {}};
}
inline void put(std::string const& path, std::string const& what) {
  std::ofstream(path, std::ios::binary) << what;
}

inline std::vector<float> floats(std::string const& path) {
  auto const bytes = contents(path);
  std::vector<float> values(bytes.size() / sizeof(float));
  std::copy_n(bytes.data(), values.size() * sizeof(float), reinterpret_cast<char*>(values.data()));
  return values;
}

/// Those of one tensor of a file.
inline std::vector<float> values_of(lm::tensor_source const& file, std::size_t index) {
  std::vector<float> out(static_cast<std::size_t>(file.tensors()[index].size()));
  file.read(index, out);
  return out;
}

inline std::span<std::byte const> as_bytes(std::string const& text) {
  return std::as_bytes(std::span(text));
}

/// The sentence with which `call` is refused, or "". Anything but a failure is none.
template <class Call>
std::string refusal(Call const& call) {
  try {
    call();
    return "";
  } catch (lm::failure const& error) {
    return error.what();
  }
}

inline bool contains(std::string const& text, std::string const& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace formats
