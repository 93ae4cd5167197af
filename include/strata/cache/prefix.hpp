// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Prefixes of sequences, as an index (prefix_index.hpp) is asked for them.
#pragma once

#include <cstdint>

#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

/// To whom a prefix belongs, beyond its tokens: nobody else finds it. Numbers of the engine's own;
/// a tenant's should be secret, or another could learn from the time to the first token what it
/// asked.
struct prefix_owner {
  std::uint64_t model = 0;
  std::uint64_t adapter = 0;
  std::uint64_t tenant = 0;
  friend constexpr bool operator==(prefix_owner const&, prefix_owner const&) noexcept = default;
};

/// Whose K and V may be taken over.
enum class reuse : std::int32_t {
  exact,  ///< of the same plan
  /// Of any plan that stores what this one does, and perhaps more. *Approximate*: the hidden states
  /// of those tokens came from other K and V than this plan's (law 12 of strata.hpp).
  subset
};

/// A prefix that was found. To be used before anything else is inserted or evicted.
struct prefix_match {
  std::int32_t num_tokens = 0;  ///< of whole blocks
  std::int32_t entry = -1;      ///< of the last block; -1: none
  std::uint64_t version = 0;    ///< of the index that it was found in
  bool exact = true;            ///< its plan is the one that was asked for
};

STRATA_NAMESPACE_END
