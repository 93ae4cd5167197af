// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <new>

#include <strata/status.hpp>

#include "parameters.hpp"

namespace lm {

/// Memory that grows and never shrinks; its contents are lost when it grows.
template <class Element>
class growing_buffer {
 public:
  strata::status grow(std::int64_t count) noexcept try {
    if (count > memory_.size()) {
      memory_ = {};
      memory_ = aligned_buffer<Element>(count);
    }
    return {};
  } catch (std::bad_alloc const&) {
    return {strata::errc::out_of_memory, strata::no_layer,
            count * static_cast<std::int64_t>(sizeof(Element)), 0};
  }
  Element* data() noexcept { return memory_.data(); }
  Element const* data() const noexcept { return memory_.data(); }
  std::int64_t size() const noexcept { return memory_.size(); }

 private:
  aligned_buffer<Element> memory_;
};

}  // namespace lm
