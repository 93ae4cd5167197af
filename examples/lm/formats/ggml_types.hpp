// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The types of ggml's tensors: how their blocks lie in memory, and what numbers they stand for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace lm {

/// A type that can be read. Rows are whole blocks, one behind the other.
struct ggml_type {
  std::uint32_t number = 0;  ///< in files
  char const* name = "";
  std::int64_t elements = 0;  ///< of a block
  std::int64_t bytes = 0;     ///< of a block
  /// Blocks to floats; from: [blocks, bytes], to: [blocks, elements]. The same bits as ggml's.
  void (*decode)(std::byte const* from, std::int64_t blocks, float* to) noexcept = nullptr;
};

/// Null where it cannot be read.
ggml_type const* find_ggml_type(std::uint32_t number) noexcept;

/// "Q2_K (10)", also of types that cannot be read, or the number alone.
std::string ggml_type_name(std::uint32_t number);

/// "F32, F16, ...": all that can be read.
std::string readable_ggml_types();

}  // namespace lm
