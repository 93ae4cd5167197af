// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <strata/routing/sampler.hpp>

STRATA_NAMESPACE_BEGIN

/// Every layer reads its own K/V: ordinary training. Routing `self`.
struct self_only {
  constexpr layer_id operator()(candidates c, draw_key) const noexcept { return c.reader(); }
};

STRATA_NAMESPACE_END
