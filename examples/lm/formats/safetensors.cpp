// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "safetensors.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string_view>
#include <utility>

#include <strata/cache/element.hpp>

#include "../failure.hpp"
#include "named.hpp"

namespace lm {

static_assert(std::endian::native == std::endian::little, "safetensors files are little endian");

namespace {

/// 0 for types that cannot be read.
std::int64_t bytes_of_type(std::string_view type) noexcept {
  return type == "F32" ? 4 : type == "F16" || type == "BF16" ? 2 : 0;
}

char const* why_unreadable(std::string_view type) noexcept {
  if (type == "F64") return "would be rounded";
  bool const integer = type == "BOOL" || type.starts_with('I') || type.starts_with('U');
  return integer ? "is no type of weights" : "is not known to this program";
}

template <class Half>
void widen(std::byte const* from, std::span<float> to) noexcept {
  for (std::size_t i = 0; i < to.size(); ++i) {
    Half x{};
    std::memcpy(&x, from + i * sizeof(x), sizeof(x));
    to[i] = strata::to_float(x);
  }
}

}  // namespace

safetensors_file::safetensors_file(std::string const& path)
    : file_(path), bytes_(file_.bytes()), path_(path) {
  parse();
}

safetensors_file::safetensors_file(std::span<std::byte const> bytes, std::string name)
    : bytes_(bytes), path_(std::move(name)) {
  parse();
}

void safetensors_file::refuse(std::string const& why) const { throw failure(path_ + ": " + why); }

void safetensors_file::refuse_tensor(std::string const& name, std::string const& why) const {
  refuse("tensor " + detail::quoted(name) + " " + why);
}

bool safetensors_file::recognises(std::span<std::byte const> bytes) noexcept {
  std::uint64_t length = 0;
  if (bytes.size() <= sizeof(length)) return false;
  std::memcpy(&length, bytes.data(), sizeof(length));
  return length <= bytes.size() - sizeof(length) && bytes[sizeof(length)] == std::byte{'{'};
}

void safetensors_file::parse() {
  std::uint64_t length = 0;
  if (bytes_.size() < sizeof(length))
    refuse("is truncated: it has " + std::to_string(bytes_.size()) +
           " bytes, the length of a header has 8");
  std::memcpy(&length, bytes_.data(), sizeof(length));
  if (length > std::uint64_t{longest_header})
    refuse("its header claims " + std::to_string(length) + " bytes; the most is " +
           std::to_string(longest_header));
  if (length > bytes_.size() - sizeof(length))
    refuse("is truncated: it has " + std::to_string(bytes_.size()) + " bytes, its header ends at " +
           std::to_string(length + sizeof(length)));
  std::string_view const header(reinterpret_cast<char const*>(bytes_.data()) + sizeof(length),
                                static_cast<std::size_t>(length));
  data_ = bytes_.subspan(sizeof(length) + header.size());
  if (!header.starts_with('{')) refuse("its header does not begin with '{'");
  auto const json = parse_strictly(header, path_ + ": its header");
  for (auto const& [name, value] : json.items())
    name == "__metadata__" ? add_metadata(value) : add_tensor(name, value);
  order_by_place();
}

void safetensors_file::add_metadata(strict_json const& json) {
  if (!json.is_object()) refuse("its __metadata__ is no object");
  for (auto const& [key, value] : json.items()) {
    if (!value.is_string())
      refuse("its __metadata__ has " + detail::quoted(key) + " of " + json_text(value) +
             "; all must be strings");
    metadata_.emplace(key, value.get<std::string>());
  }
}

void safetensors_file::add_tensor(std::string const& name, strict_json const& json) {
  bool const whole = json.is_object() && json.size() == 3 && json.contains("dtype") &&
                     json.contains("shape") && json.contains("data_offsets");
  if (!whole) refuse_tensor(name, "has other members than dtype, shape and data_offsets");
  tensor_info tensor;
  tensor.name = name;
  if (!json["dtype"].is_string()) refuse_tensor(name, "has dtype " + json_text(json["dtype"]));
  tensor.type = json["dtype"].get<std::string>();
  auto const element = bytes_of_type(tensor.type);
  if (element == 0)
    refuse_tensor(name, "has dtype " + detail::quoted(tensor.type) + ", which " +
                            why_unreadable(tensor.type) + "; this program reads F32, F16, BF16");
  auto const& shape = json["shape"];
  std::int64_t elements = 1, bytes = 0;
  bool fits = shape.is_array();
  for (std::size_t d = 0; fits && d < shape.size(); ++d) {
    fits = to_count(shape[d], tensor.shape.emplace_back()) &&
           !__builtin_mul_overflow(elements, tensor.shape.back(), &elements);
  }
  if (!fits || __builtin_mul_overflow(elements, std::int64_t{4}, &bytes))
    refuse_tensor(name, "has shape " + json_text(shape) +
                            "; it must be whole numbers, of at most 2^61 elements together");
  bytes = elements * element;
  auto const& offsets = json["data_offsets"];
  place at;
  if (!offsets.is_array() || offsets.size() != 2 || !to_count(offsets[0], at.begin) ||
      !to_count(offsets[1], at.end) || at.end < at.begin)
    refuse_tensor(name, "has data_offsets " + json_text(offsets) +
                            "; they must be two ascending "
                            "whole numbers");
  if (at.end - at.begin != bytes)
    refuse_tensor(name, "has " + std::to_string(at.end - at.begin) + " bytes; " + tensor.type +
                            " of shape " + detail::shape_text(tensor.shape) + " takes " +
                            std::to_string(bytes));
  tensors_.push_back(std::move(tensor));
  places_.push_back(at);
}

void safetensors_file::order_by_place() {
  std::vector<std::pair<place, tensor_info>> placed;
  for (std::size_t i = 0; i < tensors_.size(); ++i)
    placed.emplace_back(places_[i], std::move(tensors_[i]));
  std::ranges::sort(placed, {},
                    [](auto const& p) { return std::pair(p.first.begin, p.first.end); });
  std::int64_t end = 0;
  auto const room = static_cast<std::int64_t>(data_.size());
  tensors_.clear();
  places_.clear();
  for (auto& [at, tensor] : placed) {
    if (at.begin != end)
      refuse_tensor(tensor.name, "begins at " + std::to_string(at.begin) +
                                     "; what lies before it ends at " + std::to_string(end));
    if (at.end > room)
      refuse_tensor(tensor.name, "ends at " + std::to_string(at.end) + "; the file has " +
                                     std::to_string(room) + " bytes behind its header");
    end = at.end;
    places_.push_back(at);
    tensors_.push_back(std::move(tensor));
  }
  if (end != room)
    refuse("has " + std::to_string(room) + " bytes behind its header; its tensors end at " +
           std::to_string(end));
}

void safetensors_file::read_part(std::size_t index, std::int64_t first, std::span<float> to) const {
  check_part(index, first, to.size());
  auto const& tensor = tensors_[index];
  auto const* const from =
      data_.data() + places_[index].begin + first * (tensor.type == "F32" ? 4 : 2);
  if (tensor.type == "F16") return widen<strata::float16>(from, to);
  if (tensor.type == "BF16") return widen<strata::bfloat16>(from, to);
  if (!to.empty()) std::memcpy(to.data(), from, to.size_bytes());
}

}  // namespace lm
