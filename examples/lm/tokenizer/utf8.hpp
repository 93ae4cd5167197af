// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// UTF-8, as far as a tokenizer needs it, and GPT-2's spelling of bytes by printable characters.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

namespace lm {

/// A code point and how many bytes of UTF-8 it takes; 0 bytes: there is none.
struct code_point {
  char32_t value = 0;
  std::size_t bytes = 0;
};

/// The code point that text begins with: shortest form, no surrogates, at most U+10FFFF.
inline code_point first_code_point(std::string_view text) noexcept {
  if (text.empty()) return {};
  auto const lead = static_cast<unsigned char>(text[0]);
  if (lead < 0x80) return {lead, 1};
  std::size_t const bytes = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < bytes) return {};
  char32_t value = lead & (0x7Fu >> bytes);
  for (std::size_t i = 1; i < bytes; ++i) {
    auto const next = static_cast<unsigned char>(text[i]);
    if ((next & 0xC0) != 0x80) return {};
    value = value << 6 | (next & 0x3Fu);
  }
  if (bytes == 3 && (value < 0x800 || (value >= 0xD800 && value < 0xE000))) return {};
  if (bytes == 4 && (value < 0x10000 || value > 0x10FFFF)) return {};
  return {value, bytes};
}

/// The code point that text ends with.
inline code_point last_code_point(std::string_view text) noexcept {
  for (std::size_t bytes = 1; bytes <= 4 && bytes <= text.size(); ++bytes) {
    auto const found = first_code_point(text.substr(text.size() - bytes));
    if (found.bytes == bytes) return found;
  }
  return {};
}

/// Bytes from the front on that are UTF-8.
inline std::size_t valid_prefix(std::string_view text) noexcept {
  std::size_t at = 0;
  while (at < text.size()) {
    std::uint64_t eight = 0;
    if (text.size() - at >= sizeof eight) {
      std::memcpy(&eight, text.data() + at, sizeof eight);
      if ((eight & 0x8080'8080'8080'8080u) == 0) {
        at += sizeof eight;
        continue;
      }
    }
    auto const bytes = first_code_point(text.substr(at)).bytes;
    if (bytes == 0) break;
    at += bytes;
  }
  return at;
}

/// Bytes from the front on before the next code point. text does not begin with one.
inline std::size_t invalid_prefix(std::string_view text) noexcept {
  std::size_t at = 0;
  while (at < text.size() && first_code_point(text.substr(at)).bytes == 0) ++at;
  return at;
}

inline void append_utf8(char32_t value, std::string& text) {
  auto const put = [&](char32_t bits) { text += static_cast<char>(bits); };
  if (value < 0x80) return put(value);
  if (value < 0x800) {
    put(0xC0 | value >> 6);
  } else if (value < 0x10000) {
    put(0xE0 | value >> 12);
    put(0x80 | (value >> 6 & 0x3F));
  } else {
    put(0xF0 | value >> 18);
    put(0x80 | (value >> 12 & 0x3F));
    put(0x80 | (value >> 6 & 0x3F));
  }
  put(0x80 | (value & 0x3F));
}

/// Unicode's White_Space. PCRE2's \s would have U+180E, too.
constexpr bool is_white_space(char32_t c) noexcept {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

/// Text for a message: no longer than a line, and without what would spoil a terminal.
inline std::string shown(std::string_view text, std::size_t most = 60) {
  std::string out = "'";
  for (auto const c : text.substr(0, most))
    out += static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? '?' : c;
  if (text.size() > most)  // not in the middle of a character
    while (out.size() > 1 && last_code_point(out).bytes == 0) out.pop_back();
  return out + (text.size() > most ? "...'" : "'");
}

namespace detail {

/// Bytes that GPT-2 spells as the character of the same number.
constexpr bool spelled_as_itself(int byte) noexcept {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

/// [byte]: the character that stands for it; all others are spelled from U+0100 on, in order.
inline constexpr auto byte_units = [] {
  std::array<char32_t, 256> units{};
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte)
    units[static_cast<std::size_t>(byte)] =
        spelled_as_itself(byte) ? static_cast<char32_t>(byte) : next++;
  return units;
}();

inline constexpr auto unit_bytes = [] {
  std::array<std::int16_t, 0x144> bytes{};
  bytes.fill(-1);
  for (std::size_t byte = 0; byte < 256; ++byte)
    bytes[byte_units[byte]] = static_cast<std::int16_t>(byte);
  return bytes;
}();

}  // namespace detail

/// The spelling of bytes in vocabularies: a space is "Ġ".
inline std::string spell_bytes(std::string_view bytes) {
  std::string spelled;
  for (auto const byte : bytes)
    append_utf8(detail::byte_units[static_cast<unsigned char>(byte)], spelled);
  return spelled;
}

/// The bytes that are spelled so; none where a character stands for no byte.
inline std::optional<std::string> spelled_bytes(std::string_view spelled) {
  std::string bytes;
  while (!spelled.empty()) {
    auto const unit = first_code_point(spelled);
    if (unit.bytes == 0 || unit.value >= detail::unit_bytes.size()) return {};
    auto const byte = detail::unit_bytes[unit.value];
    if (byte < 0) return {};
    bytes += static_cast<char>(byte);
    spelled.remove_prefix(unit.bytes);
  }
  return bytes;
}

}  // namespace lm
