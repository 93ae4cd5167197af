// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// safetensors files: a byte that says how, then a file as it is, or a header that is as long as it
// is, up to its last brace, and what lies behind it. What is taken can be read, and its tensors cover
// the file to the last byte.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "failure.hpp"
#include "formats/safetensors.hpp"
#include "fuzz/fuzz.hpp"

namespace fuzz::safetensors {

enum reach { refused, taken, with_tensors, num_reaches };

/// The file that an input is.
inline std::vector<std::byte> file_of(input in) {
  bool const as_it_is = in.number<std::uint8_t>() % 2 == 0;
  std::vector<std::byte> file(in.rest().begin(), in.rest().end());
  if (as_it_is) return file;
  std::uint64_t const header = in.text().rfind('}') + 1;  // 0 where there is none
  auto const* const length = reinterpret_cast<std::byte const*>(&header);
  file.insert(file.begin(), length, length + sizeof(header));
  return file;
}

inline int one_input(bytes in) {
  auto const data = file_of(input(in));
  try {
    lm::safetensors_file const file(data, "fuzz.st");
    require(lm::safetensors_file::recognises(data) || data.size() == 8, "what is read is known");
    std::uint64_t header = 0, covered = 0;
    std::memcpy(&header, data.data(), sizeof(header));
    for (std::size_t i = 0; i < file.tensors().size(); ++i) {
      auto const& tensor = file.tensors()[i];
      require(file.find(tensor.name) == &tensor, "names are there once");
      std::vector<float> values(static_cast<std::size_t>(tensor.size()));
      file.read(i, values);
      covered += values.size() * (tensor.type == "F32" ? 4 : 2);
    }
    require(8 + header + covered == data.size(), "tensors cover the file");
    return file.tensors().empty() ? taken : with_tensors;
  } catch (lm::failure const& error) {
    require(std::string_view(error.what()).starts_with("fuzz.st: "), "a refusal names the file");
    return refused;
  }
}

}  // namespace fuzz::safetensors
