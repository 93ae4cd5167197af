// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The pairs of codecs that caches are kept in, as a list: what an engine compiles its attention for,
// and picks from by the names that its users give. Each codec of the list is read by cpu::attention
// where it lies. Any other pair makes a view as well, by codecs of one's own or by those of the list
// in another company; what no kernel reads in place is decoded to floats on the way.
#pragma once

#include <concepts>
#include <string_view>

#include <strata/cache/codec.hpp>
#include <strata/cache/fp8_codec.hpp>
#include <strata/cache/int4_codec.hpp>
#include <strata/cache/int8_codec.hpp>
#include <strata/cache/rotated_codec.hpp>
#include <strata/cache/view.hpp>
#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

/// The codecs of K and of V.
template <kv_codec K, kv_codec V = K>
struct codec_pair {
  using k_codec = K;
  using v_codec = V;
  using view = kv_view<K, V>;
};

template <class... Pairs>
struct codec_pairs {};

/// In bits per element of K and V, at head_dim 128 and with scales: 32, 16, 16; 8.5, 8.5 and 8; 8 and
/// 16; 8.5 and 4.5; 4.5. K bears fewer bits worse than V does, unless it is rotated.
using named_codec_pairs =
    codec_pairs<codec_pair<f32_codec>, codec_pair<f16_codec>, codec_pair<bf16_codec>,  //
                codec_pair<int8_codec>, codec_pair<q8_0_codec>, codec_pair<fp8_codec>,
                codec_pair<fp8_codec, bf16_codec>, codec_pair<int8_codec, int4_codec>,
                codec_pair<rotated_codec<int4_codec>, int4_codec>>;

/// Calls body(codec_pair<K, V>()) for every pair of the list.
template <class... Pairs, class Body>
constexpr void for_each_codec_pair(codec_pairs<Pairs...>, Body&& body) {
  (body(Pairs()), ...);
}

/// The same for the pair whose codecs have these names. Says whether the list has it.
template <class... Pairs, class Body>
constexpr bool with_codec_pair(codec_pairs<Pairs...>, std::string_view k, std::string_view v,
                               Body&& body) {
  auto const call = [&]<class K, class V>(codec_pair<K, V> pair) {
    if (k != K::name || v != V::name) return false;
    body(pair);
    return true;
  };
  return (call(Pairs()) || ...);
}

STRATA_NAMESPACE_END
