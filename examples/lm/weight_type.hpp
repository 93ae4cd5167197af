// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace lm {

/// The numbers that matrices of weights are kept in, in memory and in files. bf16 rounds to
/// nearest, ties to even.
enum class weight_type { f32, bf16 };

constexpr char const* weight_name(weight_type type) noexcept {
  return type == weight_type::f32 ? "f32" : "bf16";
}
constexpr std::int64_t weight_size(weight_type type) noexcept {
  return type == weight_type::f32 ? 4 : 2;
}

/// As the command line spells them.
inline std::vector<std::pair<std::string, weight_type>> weight_names() {
  return {{"f32", weight_type::f32}, {"bf16", weight_type::bf16}};
}

}  // namespace lm
