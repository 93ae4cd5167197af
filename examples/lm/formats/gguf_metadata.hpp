// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What a GGUF file says beside its tensors: keys and values, which stay where they are in the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lm {

/// Kinds of values, as files number them.
enum class gguf_kind : std::uint32_t {
  u8,
  i8,
  u16,
  i16,
  u32,
  i32,
  f32,
  boolean,
  string,
  array,
  u64,
  i64,
  f64
};

/// "uint32", or the number of what is none.
std::string gguf_kind_name(gguf_kind kind);

/// Bytes of a number or a truth, 0 of a string, an array and what is no kind.
std::size_t gguf_kind_bytes(gguf_kind kind) noexcept;

/// A value, or a list of them, in the file.
struct gguf_value {
  gguf_kind kind = gguf_kind::u8;  ///< of a list: of its elements
  bool is_list = false;
  std::uint64_t count = 1;
  std::span<std::byte const> bytes;  ///< a string's begin with its length

  /// "uint32", "list of string".
  std::string kind_text() const;
};

/// All keys of a file whose bytes have been checked; they outlive this. Each getter throws
/// `failure` where there is no such key or it has another kind, and names the file, the key and
/// both.
class gguf_metadata {
 public:
  struct entry {
    std::string_view key;
    gguf_value value;
  };

  gguf_metadata() = default;
  /// Entries in any order. Throws where two have one key.
  gguf_metadata(std::string path, std::vector<entry> entries);

  /// Ascending by key.
  std::vector<entry> const& entries() const noexcept { return entries_; }
  /// Null where there is none.
  gguf_value const* find(std::string_view key) const noexcept;
  bool has(std::string_view key) const noexcept { return find(key) != nullptr; }

  /// Of any kind of integer. Throws, too, where it is not between the two, both included.
  std::int64_t integer(std::string_view key, std::int64_t low, std::int64_t high) const;
  /// Of either kind of floating-point number.
  double number(std::string_view key) const;
  bool boolean(std::string_view key) const;
  std::string_view text(std::string_view key) const;

  /// Lists: one step for each element and no copies of strings.
  std::vector<std::string_view> texts(std::string_view key) const;
  std::vector<std::int64_t> integers(std::string_view key) const;
  std::vector<float> numbers(std::string_view key) const;

  [[noreturn]] void refuse(std::string_view key, std::string const& why) const;

 private:
  gguf_value const& get(std::string_view key, bool is_list, char const* wanted) const;

  std::string path_;
  std::vector<entry> entries_;
};

}  // namespace lm
