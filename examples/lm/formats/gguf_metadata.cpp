// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "gguf_metadata.hpp"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "../failure.hpp"
#include "named.hpp"

namespace lm {
namespace {

constexpr char const* kind_names[] = {"uint8",  "int8",    "uint16", "int16",  "uint32",
                                      "int32",  "float32", "bool",   "string", "list",
                                      "uint64", "int64",   "float64"};
constexpr std::size_t kind_bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

/// One number, which lies anywhere.
template <class T>
T load(std::byte const* at) noexcept {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

/// None where it is no integer, or one beyond 63 bits.
std::optional<std::int64_t> integer_at(gguf_kind kind, std::byte const* at) noexcept {
  switch (kind) {
    case gguf_kind::u8:
      return load<std::uint8_t>(at);
    case gguf_kind::i8:
      return load<std::int8_t>(at);
    case gguf_kind::u16:
      return load<std::uint16_t>(at);
    case gguf_kind::i16:
      return load<std::int16_t>(at);
    case gguf_kind::u32:
      return load<std::uint32_t>(at);
    case gguf_kind::i32:
      return load<std::int32_t>(at);
    case gguf_kind::i64:
      return load<std::int64_t>(at);
    case gguf_kind::u64:
      if (std::in_range<std::int64_t>(load<std::uint64_t>(at))) return load<std::int64_t>(at);
      return {};
    default:
      return {};
  }
}

bool is_integer(gguf_kind kind) noexcept {
  return kind == gguf_kind::u64 || (gguf_kind_bytes(kind) > 0 && kind != gguf_kind::f32 &&
                                    kind != gguf_kind::f64 && kind != gguf_kind::boolean);
}

/// The string at the front, which is taken away.
std::string_view take_string(std::span<std::byte const>& bytes) noexcept {
  auto const length = static_cast<std::size_t>(load<std::uint64_t>(bytes.data()));
  std::string_view const text(reinterpret_cast<char const*>(bytes.data()) + 8, length);
  bytes = bytes.subspan(8 + length);
  return text;
}

}  // namespace

std::string gguf_kind_name(gguf_kind kind) {
  auto const number = static_cast<std::uint32_t>(kind);
  return number < std::size(kind_names) ? kind_names[number] : std::to_string(number);
}

std::size_t gguf_kind_bytes(gguf_kind kind) noexcept {
  auto const number = static_cast<std::uint32_t>(kind);
  return number < std::size(kind_bytes) ? kind_bytes[number] : 0;
}

std::string gguf_value::kind_text() const {
  return (is_list ? "list of " : "") + gguf_kind_name(kind);
}

gguf_metadata::gguf_metadata(std::string path, std::vector<entry> entries)
    : path_(std::move(path)), entries_(std::move(entries)) {
  std::ranges::sort(entries_, {}, &entry::key);
  auto const twice = std::ranges::adjacent_find(entries_, {}, &entry::key);
  if (twice != entries_.end()) refuse(twice->key, "is there more than once");
}

void gguf_metadata::refuse(std::string_view key, std::string const& why) const {
  throw failure(path_ + ": " + detail::quoted(key) + " " + why);
}

gguf_value const* gguf_metadata::find(std::string_view key) const noexcept {
  auto const at = std::ranges::lower_bound(entries_, key, {}, &entry::key);
  return at != entries_.end() && at->key == key ? &at->value : nullptr;
}

gguf_value const& gguf_metadata::get(std::string_view key, bool is_list, char const* wanted) const {
  auto const* const value = find(key);
  if (value == nullptr) refuse(key, "is missing from the metadata");
  bool const fits = value->is_list == is_list &&
                    (wanted == std::string_view("integer") ? is_integer(value->kind)
                     : wanted == std::string_view("float")
                         ? value->kind == gguf_kind::f32 || value->kind == gguf_kind::f64
                         : gguf_kind_name(value->kind) == wanted);
  if (!fits)
    refuse(key, "is of kind " + value->kind_text() + "; should be of kind " +
                    (is_list ? "list of " : "") + wanted);
  return *value;
}

std::int64_t gguf_metadata::integer(std::string_view key, std::int64_t low,
                                    std::int64_t high) const {
  auto const& value = get(key, false, "integer");
  auto const number = integer_at(value.kind, value.bytes.data());
  if (number && *number >= low && *number <= high) return *number;
  refuse(key, "is " +
                  (number ? std::to_string(*number)
                          : std::to_string(load<std::uint64_t>(value.bytes.data()))) +
                  "; it must lie between " + std::to_string(low) + " and " + std::to_string(high));
}

double gguf_metadata::number(std::string_view key) const {
  auto const& value = get(key, false, "float");
  auto const* const at = value.bytes.data();
  return value.kind == gguf_kind::f32 ? double{load<float>(at)} : load<double>(at);
}

bool gguf_metadata::boolean(std::string_view key) const {
  return get(key, false, "bool").bytes.front() != std::byte{0};
}

std::string_view gguf_metadata::text(std::string_view key) const {
  auto bytes = get(key, false, "string").bytes;
  return take_string(bytes);
}

std::vector<std::string_view> gguf_metadata::texts(std::string_view key) const {
  auto const& value = get(key, true, "string");
  std::vector<std::string_view> texts(static_cast<std::size_t>(value.count));
  auto rest = value.bytes;
  for (auto& text : texts) text = take_string(rest);
  return texts;
}

std::vector<std::int64_t> gguf_metadata::integers(std::string_view key) const {
  auto const& value = get(key, true, "integer");
  std::vector<std::int64_t> numbers(static_cast<std::size_t>(value.count));
  auto const* at = value.bytes.data();
  for (auto& number : numbers) {
    auto const read = integer_at(value.kind, at);
    if (!read) refuse(key, "has an element beyond 63 bits");
    number = *read;
    at += gguf_kind_bytes(value.kind);
  }
  return numbers;
}

std::vector<float> gguf_metadata::numbers(std::string_view key) const {
  auto const& value = get(key, true, "float");
  std::vector<float> numbers(static_cast<std::size_t>(value.count));
  auto const* at = value.bytes.data();
  for (auto& number : numbers) {
    number = value.kind == gguf_kind::f32 ? load<float>(at) : static_cast<float>(load<double>(at));
    at += gguf_kind_bytes(value.kind);
  }
  return numbers;
}

}  // namespace lm
