// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// CRC-32C (Castagnoli), as in iSCSI (RFC 3720): eight bytes a step by tables of 8 KB.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

/// table[k][b]: the effect of byte b with k more bytes behind it.
inline constexpr auto crc32c_tables = [] {
  std::array<std::array<std::uint32_t, 256>, 8> table{};
  for (std::uint32_t b = 0; b < 256; ++b) {
    auto crc = b;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc % 2 == 1 ? 0x82F63B78U : 0U);
    table[0][b] = crc;
  }
  for (std::size_t k = 1; k < 8; ++k)
    for (std::size_t b = 0; b < 256; ++b)
      table[k][b] = table[k - 1][b] >> 8 ^ table[0][table[k - 1][b] & 0xFF];
  return table;
}();

/// Of bytes that come after those of which `before` is the checksum. Of "123456789": 0xE3069283.
inline std::uint32_t crc32c(std::span<std::byte const> bytes, std::uint32_t before = 0) noexcept {
  auto const& table = crc32c_tables;
  auto const at = [&](std::size_t k, std::uint32_t word) { return table[k][word & 0xFF]; };
  auto crc = ~before;
  while (bytes.size() >= 8) {
    std::uint32_t low = 0, high = 0;  // little-endian machines only, as snapshots are
    std::memcpy(&low, bytes.data(), 4);
    std::memcpy(&high, bytes.data() + 4, 4);
    low ^= crc;
    crc = at(7, low) ^ at(6, low >> 8) ^ at(5, low >> 16) ^ at(4, low >> 24) ^ at(3, high) ^
          at(2, high >> 8) ^ at(1, high >> 16) ^ at(0, high >> 24);
    bytes = bytes.subspan(8);
  }
  for (auto const byte : bytes) crc = crc >> 8 ^ at(0, crc ^ static_cast<std::uint8_t>(byte));
  return ~crc;
}

}  // namespace detail

STRATA_NAMESPACE_END
