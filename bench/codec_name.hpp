// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The codecs of cases: what they are called in names, and which are K's and V's. A case has one codec
// for both, or a strata::codec_pair.
#pragma once

#include <cstdint>

#include <strata/cache/codec.hpp>
#include <strata/cache/codec_pairs.hpp>

namespace bench {

template <class Codec>
inline constexpr char const* codec_name = "?";
template <>
inline constexpr char const* codec_name<strata::f32_codec> = "f32";
template <>
inline constexpr char const* codec_name<strata::f16_codec> = "f16";
template <>
inline constexpr char const* codec_name<strata::bf16_codec> = "bf16";
template <>
inline constexpr char const* codec_name<strata::int8_codec> = "int8";
template <>
inline constexpr char const* codec_name<strata::q8_0_codec> = "q8_0";
template <>
inline constexpr char const* codec_name<strata::fp8_codec> = "fp8";
template <>
inline constexpr char const* codec_name<strata::int4_codec> = "int4";

using int8_int4 = strata::codec_pair<strata::int8_codec, strata::int4_codec>;
using rotated_int4 =
    strata::codec_pair<strata::rotated_codec<strata::int4_codec>, strata::int4_codec>;
template <>
inline constexpr char const* codec_name<int8_int4> = "int8_int4";
template <>
inline constexpr char const* codec_name<rotated_int4> = "rot_int4_int4";

/// As a pair.
template <class Codec>
struct codecs_of : strata::codec_pair<Codec> {};
template <class K, class V>
struct codecs_of<strata::codec_pair<K, V>> : strata::codec_pair<K, V> {};

/// Bytes of a row, and of the scales that are its own.
template <class Codec>
constexpr std::int64_t stored_bytes(std::int32_t dim) {
  return Codec::row_bytes(dim) + (strata::head_scaled_codec<Codec> ? 0 : Codec::scale_bytes(dim));
}

}  // namespace bench
