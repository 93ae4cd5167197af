// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Values of a JSON document that comes from outside. What is missing, or of another type, is
// refused with its place in the document and what was there.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <string>

#include "failure.hpp"
#include "tokenizer/utf8.hpp"

namespace lm {

/// A value and how one gets there: "model.merges[17]".
class json_field {
 public:
  json_field(nlohmann::json const& value, std::string place)
      : value_(&value), place_(std::move(place)) {}

  nlohmann::json const& value() const noexcept { return *value_; }
  std::string const& place() const noexcept { return place_; }
  bool is_null() const noexcept { return value_->is_null(); }
  /// Ends in a failure that begins with the place.
  [[noreturn]] void refuse(std::string const& what) const { throw failure(place_ + " " + what); }
  [[noreturn]] void refuse_value(std::string const& wanted) const {
    auto const text = value_->dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    refuse("is " + shown(text) + "; it must be " + wanted);
  }

  /// A null where there is no such member.
  json_field operator[](char const* key) const {
    static nlohmann::json const none;
    if (!value_->is_object()) refuse_value("an object");
    auto const found = value_->find(key);
    return {found == value_->end() ? none : *found, place_.empty() ? key : place_ + "." + key};
  }
  json_field item(std::size_t index) const {
    return {(*value_)[index], place_ + "[" + std::to_string(index) + "]"};
  }
  /// How many members of an array.
  std::size_t length() const {
    if (!value_->is_array()) refuse_value("an array");
    return value_->size();
  }

  std::string const& text() const {
    if (!value_->is_string()) refuse_value("a string");
    return value_->get_ref<std::string const&>();
  }
  bool flag(bool unless_given) const {
    if (is_null()) return unless_given;
    if (!value_->is_boolean()) refuse_value("true or false");
    return value_->get<bool>();
  }
  /// A whole number in [0, end).
  std::int32_t number(std::int32_t end) const {
    bool const fits = value_->is_number_unsigned() &&
                      value_->get<std::uint64_t>() < static_cast<std::uint64_t>(end);
    if (!fits) refuse_value("a whole number from 0 to " + std::to_string(end - 1));
    return value_->get<std::int32_t>();
  }

 private:
  nlohmann::json const* value_;
  std::string place_;
};

}  // namespace lm
