// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Compiled once per instruction set, with DISPATCH_UNIT naming the kernel. A unit like this calls
// a kernel's workspace_bytes, partial and combine (and backward), and does nothing else with the
// library: of those alone every function has the instruction set in its name. What else it used, a
// step, a storage, std::vector, other units would define as well, and the linker keeps one body for
// all: perhaps the one that this processor cannot run. Nor does it run anything at start-up.
#include <strata/attention/cpu/attention.hpp>

#include "kernel.hpp"

namespace dispatch {

namespace {

using memory = std::span<std::byte>;
constexpr strata::cpu::attention kernel;

std::int64_t bytes(rows const& q, view const& keys, std::int32_t num_shares) noexcept {
  return kernel.workspace_bytes(q, keys, num_shares);
}
strata::status partial(strata::share part, rows const& q, view const& keys,
                       memory workspace) noexcept {
  return kernel.partial(part, q, keys, workspace);
}
strata::status combine(strata::share part, rows const& q, view const& keys,
                       memory workspace) noexcept {
  return kernel.combine(part, q, keys, workspace);
}

}  // namespace

constinit attention const DISPATCH_UNIT{strata::cpu::isa_name(), bytes, partial, combine};

}  // namespace dispatch
