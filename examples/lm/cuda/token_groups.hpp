// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace lm::cuda {

/// Rows by the token that they embed, rows of a token ascending: the gradient of an embedding then
/// needs no atomics. Lists have one length for batches of one size, so that a launch is the same:
/// the groups beyond the last token are empty.
struct token_groups {
  std::vector<std::int32_t> order;   ///< [rows]
  std::vector<std::int32_t> begins;  ///< [num_groups + 1]
  std::vector<std::int32_t> tokens;  ///< [num_groups]; 0 of empty ones

  std::size_t num_groups() const noexcept { return tokens.size(); }

  /// Makes the lists anew, in the memory that there is.
  void sort(std::span<std::int32_t const> token_of_row, std::int32_t vocab) {
    auto const rows = token_of_row.size();
    order.resize(rows);
    for (std::size_t r = 0; r < rows; ++r) order[r] = static_cast<std::int32_t>(r);
    auto const token = [&](std::int32_t row) {
      return token_of_row[static_cast<std::size_t>(row)];
    };
    std::sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
      return token(a) != token(b) ? token(a) < token(b) : a < b;
    });
    auto const most = std::min(rows, static_cast<std::size_t>(vocab));
    tokens.assign(most, 0);
    begins.assign(most + 1, static_cast<std::int32_t>(rows));
    std::size_t group = 0;
    for (std::size_t i = 0; i < rows; ++i) {
      if (i > 0 && token(order[i]) == token(order[i - 1])) continue;
      begins[group] = static_cast<std::int32_t>(i);
      tokens[group++] = token(order[i]);
    }
  }
};

}  // namespace lm::cuda
