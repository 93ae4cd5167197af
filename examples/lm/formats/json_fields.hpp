// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// JSON files of others: config.json, adapter_config.json.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>

#include "../failure.hpp"
#include "mapped_file.hpp"
#include "strict_json.hpp"

namespace lm {

/// Throws where the file is no JSON, or longer than any that describes a model.
inline strict_json read_json_file(std::string const& path) {
  mapped_file const file(path);
  constexpr std::size_t longest = 16 << 20;
  auto const bytes = file.bytes();
  if (bytes.size() > longest)
    throw failure(path + ": has " + std::to_string(bytes.size()) + " bytes; the most is " +
                  std::to_string(longest));
  return parse_strictly({reinterpret_cast<char const*>(bytes.data()), bytes.size()}, path);
}

/// The members of an object, each with a sentence for when it is not what it should be.
class json_fields {
 public:
  json_fields(strict_json const& json, std::string about) : json_(json), about_(std::move(about)) {
    if (!json_.is_object()) throw failure(about_ + ": is no JSON object");
  }

  [[noreturn]] void refuse(char const* name, std::string const& why) const {
    auto const given = json_.find(name);
    throw failure(about_ + ": " + name +
                  (given == json_.end() ? " is missing" : " is " + json_text(*given)) + "; " + why);
  }

  /// Null where it is missing or null.
  strict_json const* find(char const* name) const {
    auto const at = json_.find(name);
    return at == json_.end() || at->is_null() ? nullptr : &*at;
  }
  bool has(char const* name) const { return json_.contains(name); }

  /// From 1 on.
  std::int32_t count(char const* name) const {
    std::int64_t value = 0;
    auto const* const given = find(name);
    if (given == nullptr || !to_count(*given, value) || value < 1 ||
        value > std::numeric_limits<std::int32_t>::max())
      refuse(name, "it must be a whole number from 1 on");
    return static_cast<std::int32_t>(value);
  }
  std::int32_t count(char const* name, std::int32_t otherwise) const {
    return find(name) == nullptr ? otherwise : count(name);
  }
  double number(char const* name, double otherwise) const {
    auto const* const given = find(name);
    if (given == nullptr) return otherwise;
    if (!given->is_number()) refuse(name, "it must be a number");
    return given->get<double>();
  }
  bool truth(char const* name, bool otherwise = false) const {
    auto const* const given = find(name);
    if (given == nullptr) return otherwise;
    if (!given->is_boolean()) refuse(name, "it must be true or false");
    return given->get<bool>();
  }
  double number(char const* name) const {
    if (find(name) == nullptr) refuse(name, "it must be a number");
    return number(name, 0);
  }
  std::string word(char const* name, char const* otherwise) const {
    auto const* const given = find(name);
    if (given == nullptr) return otherwise;
    if (!given->is_string()) refuse(name, "it must be a string");
    return given->get<std::string>();
  }
  /// Those of a member that is an object.
  json_fields inside(char const* name) const { return {*find(name), about_ + ": " + name}; }

 private:
  strict_json const& json_;
  std::string about_;
};

}  // namespace lm
