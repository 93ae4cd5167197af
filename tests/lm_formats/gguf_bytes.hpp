// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// GGUF files made by hand, whatever they say, and where their sizes stand.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace formats {

/// Bytes one behind the other. Numbers that say how much there is of something are noted.
struct gguf_bytes {
  std::string text;
  struct size_field {
    std::size_t at = 0, bytes = 0;
    std::string what;
  };
  std::vector<size_field> sizes;

  template <class T>
  gguf_bytes& number(T value) {
    text.append(reinterpret_cast<char const*>(&value), sizeof(value));
    return *this;
  }
  template <class T>
  gguf_bytes& size(T value, char const* what) {
    sizes.push_back({text.size(), sizeof(T), what});
    return number(value);
  }
  gguf_bytes& string(std::string_view value, char const* what) {
    size(std::uint64_t{value.size()}, what);
    text += value;
    return *this;
  }
  gguf_bytes& pad(std::size_t alignment) {
    text.resize((text.size() + alignment - 1) / alignment * alignment);
    return *this;
  }
};

/// A tensor's entry.
struct gguf_entry {
  std::string name = "one";
  std::vector<std::uint64_t> extents = {4};
  std::uint32_t type = 0;
  std::uint64_t offset = 0;
};

/// A small file; each member can lie.
struct gguf_recipe {
  std::uint32_t version = 3;
  std::uint64_t alignment = 32;
  std::vector<gguf_entry> tensors = {{"one", {4}, 0, 0}, {"two", {32, 2}, 8, 32}};
  std::size_t data = 32 + 68;

  gguf_bytes made() const {
    gguf_bytes out;
    out.text = "GGUF";
    out.number(version);
    out.size(std::uint64_t{tensors.size()}, "number of tensors");
    out.size(std::uint64_t{4}, "number of keys");
    out.string("general.alignment", "key").number(4U).number(static_cast<std::uint32_t>(alignment));
    out.string("a.text", "key").number(8U).string("abc", "string");
    out.string("a.list", "key").number(9U).number(5U).size(std::uint64_t{2}, "length of a list");
    out.number(1).number(-1);
    out.string("words", "key").number(9U).number(8U).size(std::uint64_t{2}, "length of a list");
    out.string("x", "element").string("yz", "element");
    for (auto const& t : tensors) {
      out.string(t.name, "tensor's name");
      out.size(static_cast<std::uint32_t>(t.extents.size()), "dimensions");
      for (auto const extent : t.extents) out.size(extent, "extent");
      out.number(t.type).size(t.offset, "offset");
    }
    out.pad(32);
    out.text.resize(out.text.size() + data, '\1');
    return out;
  }
};

}  // namespace formats
