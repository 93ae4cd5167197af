// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What comes from outside, thrown at who reads it. A target is a header with a plain function
// one_input(bytes): it ends the program where a property does not hold and says how far the input
// came, so that who throws can see whether the depths are reached. The same function is
//
// - libFuzzer's (entry/, by clang):  cmake --preset test -B build/fuzz -DCMAKE_CXX_COMPILER=clang++
//       -DSTRATA_BUILD_FUZZERS=ON && cmake --build build/fuzz --target strata_fuzzers
//       build/fuzz/tests/fuzz/fuzz_snapshot -max_total_time=600 FOUND tests/fuzz/corpus/snapshot
//   (-dict=tests/fuzz/strategy.dict with fuzz_strategy, safetensors.dict with fuzz_safetensors).
//   FOUND, a folder, gets what is new; with -merge=1, and the corpus first or last, no more of it than
//   is needed;
// - a test by any compiler, which replays the corpus (replay_test.cpp, lm_formats/fuzz_test.cpp);
// - another, which throws some thousands of its mutations, always the same (mutation.hpp).
//
// bench/results/fuzz.json has what was run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

namespace fuzz {

using bytes = std::span<std::byte const>;

/// Ends the program where a property does not hold.
inline void require(bool holds, char const* property) {
  if (holds) return;
  std::fprintf(stderr, "fuzz: this does not hold: %s\n", property);
  std::abort();
}

/// Takes numbers from the front; beyond the end there are zeros.
class input {
 public:
  explicit input(bytes data) : rest_(data) {}

  bool empty() const { return rest_.empty(); }
  bytes rest() const { return rest_; }
  std::string_view text() const {
    return {reinterpret_cast<char const*>(rest_.data()), rest_.size()};
  }

  template <class T>
  T number() {
    static_assert(std::is_integral_v<T>);
    T value = 0;
    auto const size = rest_.size() < sizeof(T) ? rest_.size() : sizeof(T);
    if (size > 0) std::memcpy(&value, rest_.data(), size);
    rest_ = rest_.subspan(size);
    return value;
  }

  /// Of any size, most often near 0: from -64 to 175 in a byte, else 0xF0 or more, and four.
  std::int32_t near_zero() {
    if (empty()) return 0;
    auto const byte = number<std::uint8_t>();
    return byte < 0xF0 ? byte - 64 : number<std::int32_t>();
  }

 private:
  bytes rest_;
};

}  // namespace fuzz
