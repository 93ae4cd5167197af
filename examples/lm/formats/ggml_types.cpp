// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Scales have 11 bits of mantissa and their factors so few more that every product of a scale and a
// number that is added to something fits a float's 24 without rounding: whether a compiler fuses
// the two cannot change a bit.
#include "ggml_types.hpp"

#include <cstring>

#include <strata/cache/element.hpp>

namespace lm {
namespace {

using byte = std::uint8_t;

float half_at(byte const* at) noexcept {
  strata::float16 x{};
  std::memcpy(&x, at, sizeof(x));
  return strata::to_float(x);
}

/// Elements that stand for themselves.
struct f32_block {
  static constexpr std::int64_t elements = 1, bytes = 4;
  static void decode(byte const* from, float* to) noexcept { std::memcpy(to, from, 4); }
};
struct f16_block {
  static constexpr std::int64_t elements = 1, bytes = 2;
  static void decode(byte const* from, float* to) noexcept { *to = half_at(from); }
};
struct bf16_block {
  static constexpr std::int64_t elements = 1, bytes = 2;
  static void decode(byte const* from, float* to) noexcept {
    strata::bfloat16 x{};
    std::memcpy(&x, from, sizeof(x));
    *to = strata::to_float(x);
  }
};

/// 32 elements of 4 bits, or 5 with the highest in a mask, around a middle or from a least one on:
/// scale, [least], [mask of 32 bits], nibbles; byte i has elements i and i + 16.
template <int Bits, bool HasLeast>
struct nibble_block {
  static constexpr int least_at = 2, mask_at = HasLeast ? 4 : 2;
  static constexpr int nibbles_at = mask_at + (Bits == 5 ? 4 : 0);
  static constexpr std::int64_t elements = 32, bytes = nibbles_at + 16;

  static void decode(byte const* from, float* to) noexcept {
    float const scale = half_at(from);
    float const least = HasLeast ? half_at(from + least_at) : 0.0F;
    std::uint32_t mask = 0;
    if (Bits == 5) std::memcpy(&mask, from + mask_at, sizeof(mask));
    for (int i = 0; i < 32; ++i) {
      int const low = from[nibbles_at + i % 16] >> (i < 16 ? 0 : 4) & 15;
      int const number = low | static_cast<int>(mask >> i & 1U) << 4;
      if constexpr (HasLeast)
        to[i] = scale * static_cast<float>(number) + least;
      else
        to[i] = scale * static_cast<float>(number - (1 << (Bits - 1)));
    }
  }
};

/// 32 elements of 8 bits behind their scale.
struct q8_0_block {
  static constexpr std::int64_t elements = 32, bytes = 34;
  static void decode(byte const* from, float* to) noexcept {
    float const scale = half_at(from);
    for (int i = 0; i < 32; ++i)
      to[i] = scale * static_cast<float>(static_cast<std::int8_t>(from[2 + i]));
  }
};

/// A scale and a least number of 32 elements, 6 bits each.
struct scale_pair {
  int scale = 0, least = 0;
};
/// The eight pairs of a K block share 12 bytes: the first four have 6 bits of a byte each, the
/// others a nibble of the last four bytes and the two bits that those have left over.
scale_pair pair_of(byte const* packed, int i) noexcept {
  if (i < 4) return {packed[i] & 63, packed[i + 4] & 63};
  return {(packed[i + 4] & 15) | packed[i - 4] >> 6 << 4, packed[i + 4] >> 4 | packed[i] >> 6 << 4};
}

/// 256 elements of 4 or 5 bits: scales of the scales and of the least ones, pairs, [masks],
/// nibbles. Two runs of 32 share their bytes; byte i of the masks has the highest bits of element i
/// of each.
template <int Bits>
struct k_block {
  static constexpr int pairs_at = 4, masks_at = 16, nibbles_at = masks_at + (Bits == 5 ? 32 : 0);
  static constexpr std::int64_t elements = 256, bytes = nibbles_at + 128;

  static void decode(byte const* from, float* to) noexcept {
    float const scales = half_at(from), leasts = half_at(from + 2);
    for (int run = 0; run < 8; ++run) {
      auto const pair = pair_of(from + pairs_at, run);
      float const scale = scales * static_cast<float>(pair.scale);
      float const least = leasts * static_cast<float>(pair.least);
      auto const* const nibbles = from + nibbles_at + run / 2 * 32;
      for (int i = 0; i < 32; ++i) {
        int number = nibbles[i] >> (run % 2 * 4) & 15;
        if (Bits == 5) number |= (from[masks_at + i] >> run & 1) << 4;
        to[run * 32 + i] = scale * static_cast<float>(number) - least;
      }
    }
  }
};

/// 256 elements of 6 bits around 32, 16 of them with a scale of 8 bits: nibbles [2, 64], pairs of
/// high bits [2, 32], scales [16], their scale. Of four runs of 32 the first two have the low
/// halves of 64 bytes, the others the high ones.
struct q6_k_block {
  static constexpr std::int64_t elements = 256, bytes = 210;
  static void decode(byte const* from, float* to) noexcept {
    float const scales = half_at(from + 208);
    for (int half = 0; half < 2; ++half)
      for (int run = 0; run < 4; ++run)
        for (int i = 0; i < 32; ++i) {
          int const low = from[half * 64 + run % 2 * 32 + i] >> (run / 2 * 4) & 15;
          int const high = from[128 + half * 32 + i] >> (run * 2) & 3;
          auto const at = half * 128 + run * 32 + i;
          auto const scale = static_cast<std::int8_t>(from[192 + at / 16]);
          to[at] = scales * static_cast<float>(scale) * static_cast<float>((low | high << 4) - 32);
        }
  }
};

template <class Block>
void decode_blocks(std::byte const* from, std::int64_t blocks, float* to) noexcept {
  auto const* const at = reinterpret_cast<byte const*>(from);
  for (std::int64_t b = 0; b < blocks; ++b)
    Block::decode(at + b * Block::bytes, to + b * Block::elements);
}

template <class Block>
constexpr ggml_type readable(std::uint32_t number, char const* name) {
  return {number, name, Block::elements, Block::bytes, decode_blocks<Block>};
}

constexpr ggml_type readable_types[] = {
    readable<f32_block>(0, "F32"),
    readable<f16_block>(1, "F16"),
    readable<bf16_block>(30, "BF16"),
    readable<nibble_block<4, false>>(2, "Q4_0"),
    readable<nibble_block<4, true>>(3, "Q4_1"),
    readable<nibble_block<5, false>>(6, "Q5_0"),
    readable<nibble_block<5, true>>(7, "Q5_1"),
    readable<q8_0_block>(8, "Q8_0"),
    readable<k_block<4>>(12, "Q4_K"),
    readable<k_block<5>>(13, "Q5_K"),
    readable<q6_k_block>(14, "Q6_K"),
};

struct known_type {
  std::uint32_t number;
  char const* name;
};
constexpr known_type other_types[] = {
    {9, "Q8_1"},     {10, "Q2_K"},  {11, "Q3_K"},   {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"},
    {18, "IQ3_XXS"}, {19, "IQ1_S"}, {20, "IQ4_NL"}, {21, "IQ3_S"}, {22, "IQ2_S"},   {23, "IQ4_XS"},
    {24, "I8"},      {25, "I16"},   {26, "I32"},    {27, "I64"},   {28, "F64"},     {29, "IQ1_M"},
    {34, "TQ1_0"},   {35, "TQ2_0"}, {39, "MXFP4"},  {40, "NVFP4"}, {41, "Q1_0"},
};

}  // namespace

ggml_type const* find_ggml_type(std::uint32_t number) noexcept {
  for (auto const& type : readable_types)
    if (type.number == number) return &type;
  return nullptr;
}

std::string ggml_type_name(std::uint32_t number) {
  auto const in_file = " (" + std::to_string(number) + ")";
  if (auto const* const type = find_ggml_type(number)) return type->name + in_file;
  for (auto const& type : other_types)
    if (type.number == number) return type.name + in_file;
  return std::to_string(number);
}

std::string readable_ggml_types() {
  std::string list;
  for (auto const& type : readable_types)
    list += (list.empty() ? "" : ", ") + std::string(type.name);
  return list;
}

}  // namespace lm
