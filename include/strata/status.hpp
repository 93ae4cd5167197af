// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Errors as values. A call that can be refused returns a `status` (or a `result<T>`), is noexcept,
// and has changed nothing when it refuses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>

#include <strata/config.hpp>
#include <strata/errc.hpp>
#include <strata/ids.hpp>
#include <strata/tensor.hpp>

#if STRATA_HAS_EXCEPTIONS
#include <exception>
#endif

STRATA_NAMESPACE_BEGIN

/// The outcome of a call: a code and the three numbers that make the error findable.
struct [[nodiscard]] status {
  errc code = errc::ok;
  layer_id layer = no_layer;  ///< the layer concerned, or none
  std::int64_t value = 0;     ///< what was given, or how much is missing
  std::int64_t bound = 0;     ///< what would have been allowed, or how much there is

  STRATA_HOST_DEVICE constexpr bool ok() const noexcept { return code == errc::ok; }
  friend constexpr bool operator==(status const&, status const&) noexcept = default;
};

/// The refusal of a tensor that is null. Always inlined: kernels of several instruction sets call
/// it, and a linker would keep one body for all of them.
[[gnu::always_inline]] constexpr status null_pointer(tensor which,
                                                     layer_id layer = no_layer) noexcept {
  return {errc::null_pointer, layer, static_cast<std::int64_t>(which), 0};
}

/// A sentence of at most 255 characters that needs no allocation.
struct message {
  char text[256] = {};

  constexpr char const* c_str() const noexcept { return text; }
  constexpr operator std::string_view() const noexcept { return std::string_view{text}; }
};

namespace detail {

constexpr char* append_text(char* out, char const* end, std::string_view text) noexcept {
  for (std::size_t i = 0; i < text.size() && out < end; ++i) *out++ = text[i];
  return out;
}

constexpr char* append_number(char* out, char const* end, std::int64_t number) noexcept {
  char digits[20] = {};
  int count = 0;
  // The magnitude as unsigned, so that the smallest 64-bit integer has one.
  auto magnitude =
      number < 0 ? 0 - static_cast<std::uint64_t>(number) : static_cast<std::uint64_t>(number);
  do {
    digits[count++] = static_cast<char>('0' + magnitude % 10);
    magnitude /= 10;
  } while (magnitude != 0);
  if (number < 0 && out < end) *out++ = '-';
  while (count > 0 && out < end) *out++ = digits[--count];
  return out;
}

constexpr char* append_millionths(char* out, char const* end, std::int64_t number) noexcept {
  constexpr std::int64_t one = 1'000'000;
  if (number < 0 && number > -one && out < end) *out++ = '-';  // its whole part, 0, has no sign
  out = append_number(out, end, number / one);
  auto fraction = number < 0 ? -(number % one) : number % one;
  if (fraction != 0 && out < end) *out++ = '.';
  for (auto unit = one / 10; fraction != 0 && out < end; fraction %= unit, unit /= 10)
    *out++ = static_cast<char>('0' + fraction / unit);
  return out;
}

}  // namespace detail

/// The error as one sentence, with its numbers. Costs no allocation.
constexpr message describe(status s) noexcept {
  message result;
  char* out = result.text;
  char const* const end = result.text + sizeof(result.text) - 1;
  auto text = detail::sentence(s.code);
  if (constexpr std::string_view prefix = "layer {l}: ";
      !s.layer.valid() && text.starts_with(prefix))
    text.remove_prefix(prefix.size());
  for (std::size_t i = 0; i < text.size() && out < end; ++i) {
    bool const placeholder = text[i] == '{' && i + 2 < text.size() && text[i + 2] == '}';
    if (!placeholder) {
      *out++ = text[i];
      continue;
    }
    auto const which = text[i + 1];
    if (which == 'f')
      out = detail::append_millionths(out, end, s.value);
    else if (which == 't')
      out = detail::append_text(out, end, detail::name(tensor{s.value}));
    else
      out = detail::append_number(out, end,
                                  which == 'l'   ? s.layer.index
                                  : which == 'v' ? s.value
                                                 : s.bound);
    i += 2;
  }
  return result;
}

/// The error of a parsed text, with the text and a mark under the character. Of a text that does
/// not fit, what stands around the character.
constexpr message describe(status s, std::string_view text) noexcept {
  message out = describe(s);
  bool const parse_error =
      s.code >= errc::parse_unknown_strategy && s.code <= errc::parse_first_layer_must_lead;
  std::size_t length = std::string_view{out}.size();
  auto const offset = static_cast<std::size_t>(s.value < 0 ? 0 : s.value);
  if (!parse_error || offset > text.size()) return out;
  // Shown on either side of the character; dots stand for the rest. Every sentence leaves the room.
  constexpr std::size_t around = 30;
  constexpr std::string_view dots = "...";
  bool const whole = length + text.size() + offset + 8 <= sizeof(out.text);
  auto const first = whole || offset <= around ? 0 : offset - around;
  auto const shown = text.substr(first, whole ? text.size() : offset - first + around);
  auto const before = first > 0 ? dots : std::string_view{};
  auto const behind = first + shown.size() < text.size() ? dots : std::string_view{};
  auto const mark = before.size() + offset - first;
  if (length + before.size() + shown.size() + behind.size() + mark + 8 > sizeof(out.text))
    return out;
  auto const put = [&](std::string_view part) {
    for (char const c : part) out.text[length++] = c;
  };
  put("\n  "), put(before), put(shown), put(behind), put("\n  ");
  for (std::size_t i = 0; i < mark; ++i) put(" ");
  put("^");
  return out;
}

#if STRATA_HAS_EXCEPTIONS
/// What throwing constructors throw: the status, and its sentence as what().
class error : public std::exception {
 public:
  explicit error(status s) noexcept : state_(s), message_(describe(s)) {}
  status const& state() const noexcept { return state_; }
  char const* what() const noexcept override { return message_.c_str(); }

 private:
  status state_;
  message message_;
};
#endif

/// A value, or the status that says why there is none.
template <class T>
class [[nodiscard]] result {
 public:
  constexpr result(T value) noexcept : value_(std::move(value)) {}
  constexpr result(status s) noexcept : state_(s.ok() ? status{errc::unsupported} : s) {
    STRATA_ASSERT(!s.ok());
  }

  constexpr bool ok() const noexcept { return state_.ok(); }
  constexpr explicit operator bool() const noexcept { return ok(); }
  constexpr status const& state() const noexcept { return state_; }

  /// The value; only when ok().
  constexpr T& operator*() & noexcept {
    STRATA_ASSERT(ok());
    return *value_;
  }
  constexpr T const& operator*() const& noexcept {
    STRATA_ASSERT(ok());
    return *value_;
  }
  constexpr T&& operator*() && noexcept {
    STRATA_ASSERT(ok());
    return std::move(*value_);
  }
  constexpr T* operator->() noexcept {
    STRATA_ASSERT(ok());
    return &*value_;
  }
  constexpr T const* operator->() const noexcept {
    STRATA_ASSERT(ok());
    return &*value_;
  }

#if STRATA_HAS_EXCEPTIONS
  /// The value, or throws `error`.
  constexpr T& value() & { return ok() ? *value_ : throw error(state_); }
  constexpr T const& value() const& { return ok() ? *value_ : throw error(state_); }
  constexpr T&& value() && { return ok() ? std::move(*value_) : throw error(state_); }
#endif

 private:
  std::optional<T> value_;
  status state_;
};

/// a * b, or size_overflow. For sizes that come from outside.
constexpr result<std::int64_t> checked_multiply(std::int64_t a, std::int64_t b) noexcept {
  std::int64_t product = 0;
  if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &product))
    return status{errc::size_overflow, no_layer, a, b};
  return product;
}

STRATA_NAMESPACE_END
