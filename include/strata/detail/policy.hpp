// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <concepts>

#include <strata/config.hpp>
#include <strata/geometry.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

/// A policy's own word on its parameters, where it has a `check()`.
template <class Policy>
constexpr status check_parameters(Policy const& policy) noexcept {
  if constexpr (requires {
                  { policy.check() } noexcept -> std::same_as<status>;
                })
    return policy.check();
  else
    return {};
}

/// The same for a policy that wants to see the model, and has a `check(classes)`.
template <class Policy>
constexpr status check_parameters(Policy const& policy, kv_classes const& classes) noexcept {
  if constexpr (requires {
                  { policy.check(classes) } noexcept -> std::same_as<status>;
                })
    return policy.check(classes);
  else
    return check_parameters(policy);
}

/// A table or map inside a sampler must be made for as many layers as the model has.
constexpr status check_layer_count(std::int32_t num_layers, kv_classes const& classes) noexcept {
  if (num_layers == classes.num_layers()) return {};
  return {errc::layer_count_mismatch, no_layer, num_layers, classes.num_layers()};
}

}  // namespace detail

STRATA_NAMESPACE_END
