// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Dropout (Srivastava et al., JMLR 2014) of what the two halves of each layer read, after their
// norm. What a pass drops is a function of its key, the replica apart, and of each number's place, so
// that the backward pass draws it once more instead of keeping it, and a device drops what the
// processor does:
//
//   s = draw_stream(key)
//   w = philox({place, purpose, block_high, block_low}, {s[0], s[1]})
//
// `place` is 2 l for what layer l's attention reads, 2 l + 1 for what its MLP does. Block b decides
// of numbers 8 b to 8 b + 7 of [rows, dim], two of each word, the low 16 bits first: a number is
// dropped where its bits are below rate * 2^16. 3.7 ns a number on a core of a Zen 3, where a step
// draws each three times: 5 % of a step of 8 layers of 256.
#pragma once

#include <cstdint>

#include <strata/config.hpp>
#include <strata/random.hpp>

namespace lm {

/// 16 bits of a draw, of eight such: of each word the low ones first.
STRATA_HOST_DEVICE constexpr std::uint32_t half_word(strata::philox_block const& words,
                                                     std::int32_t i) noexcept {
  return words.word[i / 2] >> 16 * (i % 2) & 0xFFFF;
}

/// What a pass drops. By default nothing.
class dropout {
 public:
  static constexpr std::int64_t block = 8;        ///< numbers that one draw decides of
  static constexpr double highest_rate = 0.9375;  // 16 times what is kept: more would be a typo

  constexpr dropout() noexcept = default;
  /// A number is 0 with probability `rate`, to 2^-17, and else divided by 1 - rate. 0 <= rate <=
  /// highest_rate.
  STRATA_HOST_DEVICE constexpr dropout(double rate, strata::draw_key const& key) noexcept
      : below_(static_cast<std::uint32_t>(rate * 65536 + 0.5)),
        kept_(65536.0F / (65536.0F - static_cast<float>(below_))),
        stream_(strata::draw_stream(key)) {}

  STRATA_HOST_DEVICE constexpr bool drops() const noexcept { return below_ > 0; }

  /// What numbers 8 b to 8 b + 7 of a place are multiplied by.
  STRATA_HOST_DEVICE constexpr void factors(std::uint32_t place, std::int64_t b,
                                            float (&out)[block]) const noexcept {
    auto const at = static_cast<std::uint64_t>(b);
    auto const w =
        strata::philox({{place, static_cast<std::uint32_t>(strata::draw_purpose::dropout),
                         static_cast<std::uint32_t>(at >> 32), static_cast<std::uint32_t>(at)}},
                       stream_.word[0], stream_.word[1]);
    for (std::int32_t i = 0; i < block; ++i) out[i] = half_word(w, i) < below_ ? 0 : kept_;
  }

 private:
  std::uint32_t below_ = 0;
  float kept_ = 1;
  strata::philox_block stream_ = {};
};

/// The places of a layer.
STRATA_HOST_DEVICE constexpr std::uint32_t attention_input(std::int32_t layer) noexcept {
  return 2 * static_cast<std::uint32_t>(layer);
}
STRATA_HOST_DEVICE constexpr std::uint32_t mlp_input(std::int32_t layer) noexcept {
  return 2 * static_cast<std::uint32_t>(layer) + 1;
}

/// Drops of numbers first, first + 1 and so on of a place. x: [count]. `first` is a multiple of 8.
template <class T>
void drop(dropout const& what, std::uint32_t place, std::int64_t first, T* x,
          std::int64_t count) noexcept {
  if (!what.drops()) return;
  STRATA_ASSERT(first % dropout::block == 0);
  for (std::int64_t i = 0; i < count; i += dropout::block) {
    float factors[dropout::block];
    what.factors(place, (first + i) / dropout::block, factors);
    auto const here = count - i < dropout::block ? count - i : dropout::block;
    for (std::int64_t j = 0; j < here; ++j) x[i + j] *= static_cast<T>(factors[j]);
  }
}

}  // namespace lm
