// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Numbers as people read and write them: bytes with binary suffixes, durations, rates.
#pragma once

#include <cctype>
#include <cmath>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>

namespace lm {

/// printf into a string, however long.
[[gnu::format(printf, 1, 2)]] inline std::string text(char const* format, ...) {
  std::va_list arguments, again;
  va_start(arguments, format);
  va_copy(again, arguments);
  auto const size = std::vsnprintf(nullptr, 0, format, arguments);
  std::string out(static_cast<std::size_t>(size < 0 ? 0 : size), '\0');
  std::vsnprintf(out.data(), out.size() + 1, format, again);
  va_end(again);
  va_end(arguments);
  return out;
}

/// Three significant digits or a whole number: 1536 is "1.50 KiB", 512 is "512 B".
inline std::string bytes_text(double bytes) {
  static constexpr char const* units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  int unit = 0;
  while (std::abs(bytes) >= 1024 && unit < 5) {
    bytes /= 1024;
    ++unit;
  }
  bool const whole = bytes == std::floor(bytes);
  int const decimals = whole ? 0 : std::abs(bytes) < 10 ? 2 : std::abs(bytes) < 100 ? 1 : 0;
  return text("%.*f %s", decimals, bytes, units[unit]);
}
inline std::string bytes_text(std::int64_t bytes) { return bytes_text(static_cast<double>(bytes)); }

/// "512MiB", "1.5 GiB", "300KB" (a thousand), "4096": bytes, or none where it means nothing. At
/// most 2^62.
inline std::optional<std::int64_t> parse_bytes(std::string_view given) {
  std::size_t at = 0;
  double number = 0, unit = 1;
  int digits = 0;
  bool point = false;
  for (; at < given.size(); ++at) {
    char const c = given[at];
    if (c == '.' && !point) {
      point = true;
    } else if (c >= '0' && c <= '9') {
      number = number * 10 + (c - '0');
      if (point) unit *= 10;
      ++digits;
    } else {
      break;
    }
  }
  if (digits == 0) return {};
  while (at < given.size() && given[at] == ' ') ++at;
  std::string suffix;
  for (; at < given.size(); ++at)
    suffix += static_cast<char>(std::tolower(static_cast<unsigned char>(given[at])));
  double factor = 0;
  if (suffix.empty() || suffix == "b") factor = 1;
  static constexpr std::string_view prefixes = "kmgt";
  for (std::size_t i = 0; i < prefixes.size(); ++i) {
    auto const power = static_cast<double>(i + 1);
    std::string const prefix(1, prefixes[i]);
    if (suffix == prefix + "ib" || suffix == prefix + "i") factor = std::pow(1024.0, power);
    if (suffix == prefix + "b") factor = std::pow(1000.0, power);
  }
  double const bytes = number / unit * factor;
  if (factor == 0 || bytes > 0x1p62) return {};
  return static_cast<std::int64_t>(bytes);
}

/// 65 s is "1:05", 3 700 s is "1:01:40", 9.5 s is "9.5 s".
inline std::string duration_text(double seconds) {
  if (seconds < 10) return text("%.1f s", seconds);
  auto const whole = static_cast<long long>(std::llround(seconds));
  if (whole < 60) return text("%lld s", whole);
  if (whole < 3600) return text("%lld:%02lld", whole / 60, whole % 60);
  return text("%lld:%02lld:%02lld", whole / 3600, whole / 60 % 60, whole % 60);
}

/// 1234567 is "1 234 567".
inline std::string count_text(std::int64_t count) {
  auto const digits = std::to_string(count);
  std::string out;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    bool const group_begins = i > 0 && (digits.size() - i) % 3 == 0 && digits[i - 1] != '-';
    if (group_begins) out += ' ';
    out += digits[i];
  }
  return out;
}

/// Rates and times: as many decimals as three significant digits need.
inline std::string rate_text(double rate) {
  return text("%.*f", rate < 10 ? 2 : rate < 100 ? 1 : 0, rate);
}

}  // namespace lm
