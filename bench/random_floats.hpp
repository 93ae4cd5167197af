// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace bench {

/// Random, because a memory of zeros is one page read again and again, and zero factors are easy.
inline std::vector<float> random_floats(std::int64_t count, std::uint32_t seed) {
  std::minstd_rand engine(seed + 1);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (auto& x : values) x = static_cast<float>(engine()) * 0x1p-30f - 1.0f;
  return values;
}

}  // namespace bench
