// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include <strata/checksum.hpp>

namespace {

/// Checked by tables, too, whatever the processor has.
std::uint32_t crc32c(std::span<unsigned char const> data, std::uint32_t before = 0) {
  auto const bytes = std::as_bytes(data);
  auto const crc = strata::crc32c(bytes, before);
  CHECK(crc == ~strata::detail::crc32c_by_tables(bytes, ~before));
  return crc;
}

}  // namespace

TEST_CASE("CRC-32C of the published vectors") {
  std::string_view const digits = "123456789";
  CHECK(strata::crc32c(std::as_bytes(std::span(digits))) == 0xE3069283);
  std::vector<unsigned char> data(digits.begin(), digits.end());
  CHECK(crc32c(data) == 0xE3069283);
  data.assign(32, 0);  // RFC 3720, B.4
  CHECK(crc32c(data) == 0x8A9136AA);
  data.assign(32, 0xFF);
  CHECK(crc32c(data) == 0x62A8AB43);
  for (std::size_t i = 0; i < 32; ++i) data[i] = static_cast<unsigned char>(i);
  CHECK(crc32c(data) == 0x46DD794E);
  for (std::size_t cut = 0; cut <= 32; ++cut) {  // in two parts
    auto const first = crc32c(std::span(data).first(cut));
    CHECK(crc32c(std::span(data).subspan(cut), first) == 0x46DD794E);
  }
}
