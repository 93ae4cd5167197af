// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "config.hpp"
#include "cuda/machine.hpp"
#include "layers.hpp"

namespace lm::cuda {

/// RoPE's cosines and sines of positions 0, 1, ... on a device. Waits when it is made.
template <machine Machine>
class device_angles {
 public:
  device_angles(Machine& m, model_config const& c, std::int32_t positions)
      : count_(std::int64_t{positions} * (c.head_dim / 2)),
        values_(m.template allocate<float>(2 * count_)) {
    rope_table<float> const table(positions, c);
    auto const all = static_cast<std::size_t>(count_);
    m.upload(std::span(table.cos(0), all), values_.data());
    m.upload(std::span(table.sin(0), all), values_.data() + count_);
    m.wait();  // for the table
  }

  float const* cos() const noexcept { return values_.data(); }  ///< [positions, head_dim / 2]
  float const* sin() const noexcept { return cos() + count_; }  ///< the same

 private:
  std::int64_t count_ = 0;
  decltype(std::declval<Machine&>().template allocate<float>(0)) values_;  // cosines, sines
};

}  // namespace lm::cuda
