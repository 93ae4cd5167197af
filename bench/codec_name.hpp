// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What codecs are called in the names of cases.
#pragma once

#include <strata/cache/codec.hpp>
#include <strata/cache/int8_codec.hpp>

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

}  // namespace bench
