// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <string>

namespace formats {

/// A file of any header, with so many bytes behind it. Its length can lie.
inline std::string hand_safetensors(std::string const& header, std::size_t data = 0,
                                    std::uint64_t length_more = 0) {
  std::uint64_t const length = header.size() + length_more;
  return std::string(reinterpret_cast<char const*>(&length), 8) + header + std::string(data, '\1');
}

/// {"a":{"dtype":...,"shape":...,"data_offsets":...}}
inline std::string one_tensor(std::string const& dtype, std::string const& shape,
                              std::string const& offsets) {
  return R"({"a":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets +
         "}}";
}

}  // namespace formats
