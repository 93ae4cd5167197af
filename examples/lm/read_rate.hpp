// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// How fast this machine reads memory, measured right beside what is compared with it: others may
// use the memory, too, and then it is half as fast.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>

#include <strata/executor.hpp>
#include <strata/thread_pool.hpp>

#include "aligned_buffer.hpp"
#include "progress.hpp"

namespace lm {

/// Memory of the kind that weights and K/V lie in, more than caches hold: 256 MiB.
class read_probe {
 public:
  /// Memory that is there is as good, if it is enough: weights, which need none beside them then.
  explicit read_probe(std::span<std::byte const> given = {}) : data_(given) {
    constexpr std::int64_t enough = std::int64_t{256} << 20;
    if (std::cmp_greater_equal(given.size(), enough)) return;
    own_ = aligned_buffer<std::byte>(enough);
    // Zeros could all be one page.
    for (std::int64_t i = 0; i < enough; i += 64) own_.data()[i] = std::byte{1};
    data_ = own_.values();
  }

  /// Bytes per second that all threads together read: best of five.
  double rate(strata::thread_pool& pool) noexcept {
    double best = 0;
    for (int i = 0; i < 5; ++i) {
      stopwatch const clock;
      static_cast<void>(pool.run([&](strata::share part) noexcept -> strata::status {
        folded_.fetch_xor(fold(part), std::memory_order_relaxed);
        return {};
      }));
      best = std::max(best, static_cast<double>(data_.size_bytes()) / clock.seconds());
    }
    return best;
  }

 private:
  typedef std::uint64_t words __attribute__((vector_size(64)));

  /// Of a thread's part, in 4 sums, so that none waits for the one before.
  std::uint64_t fold(strata::share part) const noexcept {
    constexpr std::int64_t step = 4 * sizeof(words);
    auto const steps = static_cast<std::int64_t>(data_.size()) / step;
    words sum[4] = {};
    for (auto i = part.begin(steps); i < part.end(steps); ++i) {
      words now[4];
      std::memcpy(now, data_.data() + i * step, step);
      for (int j = 0; j < 4; ++j) sum[j] ^= now[j];
    }
    words const all = sum[0] ^ sum[1] ^ sum[2] ^ sum[3];
    return all[0] ^ all[1] ^ all[2] ^ all[3] ^ all[4] ^ all[5] ^ all[6] ^ all[7];
  }

  aligned_buffer<std::byte> own_;
  std::span<std::byte const> data_;
  std::atomic<std::uint64_t> folded_{0};  // kept, so that it is computed
};

}  // namespace lm
