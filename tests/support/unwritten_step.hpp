// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Steps of tests that look at no K and V.
#pragma once

#include <cstdint>

#include <strata/stack.hpp>

namespace support {

/// Says of every row that it was stored.
template <class Step>
void mark_all_stored(Step& step, std::int32_t num_layers) {
  for (strata::layer_id l{0}; l.index < num_layers; ++l.index) {
    for (auto const& run : step.k_writers(l)) run.mark_stored();
    for (auto const& run : step.v_writers(l)) run.mark_stored();
  }
}

/// Grows a sequence by tokens whose K and V are whatever the memory holds.
template <class Stack>
strata::status grow_unwritten(Stack& stack, strata::batch_entry const& entry) {
  auto step = stack.begin(entry);
  mark_all_stored(step, stack.storage().classes().num_layers());
  return step.commit();
}

}  // namespace support
