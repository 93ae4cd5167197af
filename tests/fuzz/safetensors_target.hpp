// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// safetensors files. A byte says how the input makes one: below 128, if it is even, as it is; if it
// is odd, a header up to its last brace, before which goes its length, and what lies behind it;
// from 128 on, numbers for tensors, whose places are right or not. What is taken can be read, and
// its tensors cover the file to the last byte.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "failure.hpp"
#include "formats/safetensors.hpp"
#include "fuzz/fuzz.hpp"

namespace fuzz::safetensors {

enum reach { refused, taken, with_tensors, num_reaches };

/// A header and data behind it, with the length before them.
inline std::vector<std::byte> with_length(bytes rest, std::uint64_t header) {
  std::vector<std::byte> file(sizeof(header) + rest.size());
  std::memcpy(file.data(), &header, sizeof(header));
  std::copy(rest.begin(), rest.end(), file.begin() + sizeof(header));
  return file;
}

/// Up to 8 tensors; the bits of a byte choose type, dimensions and whether the places are right.
inline std::vector<std::byte> built_of(input& in) {
  std::string header = "{";
  std::int64_t end = 0;
  for (int t = 0; t < 8 && !in.empty(); ++t) {
    auto const bits = in.number<std::uint8_t>();
    char const* const types[] = {"F32", "F16", "BF16", "F64"};
    std::string shape;
    std::uint64_t bytes = bits % 4 == 0 ? 4 : 2;  // wraps where extents are large: a wrong place
    for (int d = 0; d < (bits >> 2 & 3); ++d) {
      auto const extent = std::int64_t{in.near_zero()} + 64;
      shape += (d > 0 ? "," : "") + std::to_string(extent);
      bytes *= static_cast<std::uint64_t>(extent);
    }
    bool const right = (bits >> 4) % 4 != 0;
    auto const begin = right ? end : std::int64_t{in.near_zero()};
    end = begin + static_cast<std::int64_t>(bytes % 65536) + (right ? 0 : in.near_zero());
    header += (t > 0 ? ",\"" : "\"") + std::string(1, static_cast<char>('a' + bits % 64 % 26)) +
              std::to_string(bits >> 6 == 0 ? 0 : t) + "\":{\"dtype\":\"" + types[bits % 4] +
              "\",\"shape\":[" + shape + "],\"data_offsets\":[" + std::to_string(begin) + "," +
              std::to_string(end) + "]}";
  }
  header += "}";
  auto const length = header.size();
  if (end > 0 && end < 1 << 20) header.resize(length + static_cast<std::size_t>(end), '\1');
  return with_length(std::as_bytes(std::span(header)), length);
}

/// The file that an input is.
inline std::vector<std::byte> file_of(input in) {
  auto const how = in.number<std::uint8_t>();
  if (how >= 128) return built_of(in);
  if (how % 2 == 1) return with_length(in.rest(), in.text().rfind('}') + 1);  // 0: there is none
  return {in.rest().begin(), in.rest().end()};
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
