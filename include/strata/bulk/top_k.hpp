// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The tokens of greatest score of each sequence's KV head: whom eviction keeps.
#pragma once

#include <cstdint>
#include <limits>
#include <span>

#include <strata/bulk/detail/policy.hpp>
#include <strata/bulk/detail/sort.hpp>
#include <strata/bulk/gather.hpp>
#include <strata/bulk/rows.hpp>
#include <strata/config.hpp>
#include <strata/detail/math.hpp>
#include <strata/ids.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace bulk {

/// Scores of the tokens of segments; a segment is a sequence, or one KV head of it.
struct token_scores {
  float const* data = nullptr;  ///< token t of segment s: data[s * stride + t]
  std::int64_t num_segments = 0;
  std::int64_t stride = 0;
  std::int32_t const* lengths = nullptr;  ///< [num_segments], or null: all have `length`
  std::int32_t length = 0;                ///< with `lengths`: a bound of them
};

namespace detail {

inline constexpr std::uint32_t no_rank = 0xFFFFFFFF;

/// Orders floats from the greatest down; 0 and -0 are the same. NaN has none.
STRATA_HOST_DEVICE inline std::uint32_t rank_of(float score) noexcept {
  constexpr std::uint32_t sign = 0x80000000;
  auto const bits = strata::detail::bit_cast<std::uint32_t>(score);
  if ((bits & ~sign) > 0x7F800000) return no_rank;
  if (bits == sign) return sign - 1;  // that of 0
  return (bits & sign) != 0 ? bits : bits ^ (sign - 1);
}

/// Segments stay together: a sort by these keys is one of each segment.
STRATA_HOST_DEVICE inline std::uint64_t segment_key(std::int64_t segment,
                                                    std::uint32_t rank) noexcept {
  return static_cast<std::uint64_t>(segment) << 32 | rank;
}

/// Element i of [num_segments, width]: a token and its key.
struct rank_token {
  token_scores scores;
  std::int64_t width;
  std::uint64_t* keys;
  std::int32_t* tokens;

  STRATA_HOST_DEVICE void operator()(std::int64_t i) const noexcept {
    auto const segment = i / width, token = i % width;
    auto const length =
        scores.lengths == nullptr ? scores.length : std::int64_t{scores.lengths[segment]};
    auto const rank =
        token < length ? rank_of(scores.data[segment * scores.stride + token]) : no_rank;
    keys[i] = segment_key(segment, rank);
    tokens[i] = static_cast<std::int32_t>(token);
  }
};

/// Element i of [num_segments, picked]: one of a segment's first, and the token as its new key.
struct pick_token {
  std::uint64_t const* keys;  // [num_segments, width], sorted
  std::int32_t const* tokens;
  std::int64_t width;
  std::int64_t picked;
  std::uint64_t* picked_keys;
  std::int32_t* picked_tokens;

  STRATA_HOST_DEVICE void operator()(std::int64_t i) const noexcept {
    auto const from = i / picked * width + i % picked;
    bool const none = static_cast<std::uint32_t>(keys[from]) == no_rank;
    auto const token = none ? -1 : tokens[from];
    picked_keys[i] = segment_key(i / picked, static_cast<std::uint32_t>(token));
    picked_tokens[i] = token;
  }
};

/// Element i of [num_segments, k], or of [num_segments] where k is 0: what is given back.
struct give_token {
  std::int32_t const* picked_tokens;  // [num_segments, picked], sorted, none last
  std::int64_t picked;
  std::int64_t k;
  std::int32_t* tokens;
  std::int32_t* counts;

  STRATA_HOST_DEVICE std::int32_t at(std::int64_t segment, std::int64_t j) const noexcept {
    return j < picked ? picked_tokens[segment * picked + j] : -1;
  }
  STRATA_HOST_DEVICE void operator()(std::int64_t i) const noexcept {
    auto const each = strata::detail::larger<std::int64_t>(k, 1);
    auto const segment = i / each, j = i % each;
    auto const token = at(segment, j);
    if (k > 0) tokens[i] = token;
    if (counts == nullptr) return;
    if (j == 0 && token < 0) counts[segment] = 0;
    if (token >= 0 && at(segment, j + 1) < 0) counts[segment] = static_cast<std::int32_t>(j + 1);
  }
};

inline status check_scores(token_scores const& scores) noexcept {
  constexpr std::int64_t most = (std::numeric_limits<std::int32_t>::max)();
  if (scores.num_segments < 0) return {errc::value_too_small, no_layer, scores.num_segments, 0};
  if (scores.num_segments > most)
    return {errc::value_too_large, no_layer, scores.num_segments, most};
  if (scores.length < 0) return {errc::value_too_small, no_layer, scores.length, 0};
  if (scores.num_segments > 1 && scores.stride < scores.length)
    return {errc::value_too_small, no_layer, scores.stride, scores.length};
  if (scores.num_segments > 0 && scores.length > 0 && scores.data == nullptr)
    return null_pointer(tensor::scores);
  return {};
}

/// Throws. width: of a segment, at least 1; picked: of them, at least 1.
template <class Policy>
void pick_tokens(Policy const& policy, token_scores const& scores, std::int64_t picked,
                 std::int32_t* picked_tokens) {
  std::int64_t const width = scores.length;
  auto const count = scores.num_segments * width, chosen = scores.num_segments * picked;
  temporary<std::uint64_t, Policy> const keys(policy, count), chosen_keys(policy, chosen);
  temporary<std::int32_t, Policy> const tokens(policy, count);
  for_each_index(policy, count, rank_token{scores, width, keys.data(), tokens.data()});
  sort_by_key(policy, keys.data(), count, tokens.data());
  for_each_index(
      policy, chosen,
      pick_token{keys.data(), tokens.data(), width, picked, chosen_keys.data(), picked_tokens});
  sort_by_key(policy, chosen_keys.data(), chosen, picked_tokens);
}

}  // namespace detail

/// The k tokens of greatest score of each segment, in ascending order; equal scores (0 and -0 are)
/// go to the lower token. A NaN is never chosen, minus infinity is a score like any other. What a
/// segment has too few tokens for is -1, behind the others. The same on every system, to the bit.
/// Needs temporary memory: 12 bytes for each of num_segments * length scores, 12 for each token
/// chosen, and what sorting takes.
/// tokens: [num_segments, k]. counts: [num_segments], how many of a segment were chosen, or empty.
template <class Policy>
status top_k(Policy const& policy, token_scores const& scores, std::int32_t k,
             std::span<std::int32_t> tokens, std::span<std::int32_t> counts = {}) noexcept {
  if (auto const s = detail::check_scores(scores); !s.ok()) return s;
  if (k < 0) return {errc::value_too_small, no_layer, k, 0};
  auto const segments = scores.num_segments, wanted = segments * k;
  if (detail::size_of(tokens) < wanted)
    return {errc::value_too_small, no_layer, detail::size_of(tokens), wanted};
  if (!counts.empty() && detail::size_of(counts) < segments)
    return {errc::value_too_small, no_layer, detail::size_of(counts), segments};
  if constexpr (detail::host_policy<Policy>)
    if (scores.lengths != nullptr) {
      std::span const lengths(scores.lengths, static_cast<std::size_t>(segments));
      if (auto const s = check_list(policy, lengths, std::int64_t{scores.length} + 1); !s.ok())
        return s;
    }
  auto const bytes = checked_multiply(segments * scores.length + wanted, 12);
  if (!bytes.ok()) return bytes.state();
  return detail::guarded(*bytes, [&]() -> status {
    auto const picked = strata::detail::smaller<std::int64_t>(k, scores.length);
    detail::temporary<std::int32_t, Policy> const chosen(policy, segments * picked);
    if (segments * picked > 0) detail::pick_tokens(policy, scores, picked, chosen.data());
    detail::for_each_index(policy, segments * strata::detail::larger(k, 1),
                           detail::give_token{chosen.data(), picked, k, tokens.data(),
                                              counts.empty() ? nullptr : counts.data()});
    return {};
  });
}

}  // namespace bulk

STRATA_NAMESPACE_END
