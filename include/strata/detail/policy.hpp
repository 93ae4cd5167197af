// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <concepts>
#include <type_traits>

#include <strata/config.hpp>
#include <strata/geometry.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

struct member_check {
  void check();
};
template <class Policy>
struct beside_member_check : Policy, member_check {};

/// Whether a policy has a member `check`, of whatever signature and access: then the name has two
/// meanings in a class that inherits another one.
template <class Policy>
constexpr bool has_member_check() noexcept {
  if constexpr (std::is_class_v<Policy> && !std::is_final_v<Policy>)
    return !requires { &beside_member_check<Policy>::check; };
  else
    return requires { &Policy::check; };
}

/// A policy's own word on its parameters, where it has a `check()`. One that could not be asked
/// would let bad parameters pass in silence, so it does not compile.
template <class Policy>
constexpr status check_parameters(Policy const& policy) noexcept {
  if constexpr (requires {
                  { policy.check() } noexcept -> std::same_as<status>;
                }) {
    return policy.check();
  } else {
    static_assert(!has_member_check<Policy>(),
                  "strata: a policy's check must be `status check() const noexcept`; a sampler's "
                  "may be `status check(kv_classes const&) const noexcept`");
    return {};
  }
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
