// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Names and shapes of files from anywhere, for messages that go to a terminal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lm::detail {

/// 'name', of printable ASCII whatever is in it, and no longer than a line.
inline std::string quoted(std::string_view name) {
  constexpr std::size_t most = 80;
  constexpr char const digits[] = "0123456789abcdef";
  std::string out = "'";
  for (char const c : name.substr(0, most)) {
    auto const byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7F)
      out += c;
    else
      out += std::string("\\x") + digits[byte >> 4] + digits[byte & 15];
  }
  return out + (name.size() > most ? "...'" : "'");
}

/// [2, 3], or [] of a single number.
inline std::string shape_text(std::vector<std::int64_t> const& shape) {
  std::string out = "[";
  for (auto const extent : shape) out += (out.size() > 1 ? ", " : "") + std::to_string(extent);
  return out + "]";
}

}  // namespace lm::detail
