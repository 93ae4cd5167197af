// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <string_view>

#include <strata/config.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

/// Reads a policy string from left to right. Errors carry the offset of the offending character in
/// the whole text, so that `describe(status, text)` can point at it.
class text_cursor {
 public:
  constexpr explicit text_cursor(std::string_view text, std::int64_t offset = 0) noexcept
      : text_(text), offset_(offset) {}

  constexpr std::int64_t position() const noexcept {
    return offset_ + static_cast<std::int64_t>(at_);
  }
  constexpr bool done() const noexcept { return at_ == text_.size(); }
  constexpr std::string_view rest() const noexcept { return text_.substr(at_); }

  /// Takes `expected` if it comes next.
  constexpr bool take(std::string_view expected) noexcept {
    if (!rest().starts_with(expected)) return false;
    at_ += expected.size();
    return true;
  }
  /// The same where it is the whole word: what follows is no letter.
  constexpr bool take_word(std::string_view word) noexcept {
    auto const behind = rest().substr(rest().size() < word.size() ? rest().size() : word.size());
    if (!behind.empty() && is_letter(behind.front())) return false;
    return take(word);
  }
  constexpr status expect(std::string_view separator) noexcept {
    if (take(separator)) return {};
    return {errc::parse_expected_separator, no_layer, position(), 0};
  }
  constexpr status expect_end() const noexcept {
    if (done()) return {};
    return {errc::parse_trailing_text, no_layer, position(), 0};
  }

  /// A whole number in [low, high].
  constexpr result<std::int32_t> integer(std::int32_t low, std::int32_t high) noexcept {
    auto const start = position();
    std::int64_t number = 0;
    int digits = 0;
    for (; !done() && is_digit(text_[at_]); ++at_, ++digits)
      if (number < 1'000'000'000) number = number * 10 + (text_[at_] - '0');
    if (digits == 0) return status{errc::parse_expected_number, no_layer, start, 0};
    if (number < low) return status{errc::parse_number_too_small, no_layer, start, low};
    if (number > high) return status{errc::parse_number_too_large, no_layer, start, high};
    return static_cast<std::int32_t>(number);
  }

  /// A decimal number in [0, 1], such as 0.5, .25 or 1.
  constexpr result<double> probability() noexcept {
    auto const start = position();
    double number = 0, unit = 1;
    int digits = 0;
    bool point = false;
    for (; !done() && (is_digit(text_[at_]) || (text_[at_] == '.' && !point)); ++at_) {
      if (text_[at_] == '.') {
        point = true;
        continue;
      }
      if (point) unit *= 10;
      number = number * 10 + (text_[at_] - '0');
      ++digits;
    }
    if (digits == 0) return status{errc::parse_expected_number, no_layer, start, 0};
    if (!(number / unit <= 1)) return status{errc::parse_number_too_large, no_layer, start, 1};
    return number / unit;
  }

 private:
  static constexpr bool is_letter(char c) noexcept {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  }
  static constexpr bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }

  std::string_view text_;
  std::int64_t offset_;
  std::size_t at_ = 0;
};

}  // namespace detail

STRATA_NAMESPACE_END
