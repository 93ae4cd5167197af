// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// How doctest prints the library's values when a check fails.
#pragma once

#include <doctest/doctest.h>

#include <string>

#include <strata/ids.hpp>
#include <strata/plan.hpp>
#include <strata/status.hpp>

namespace strata {

// Found by its argument: doctest prints enums as numbers before it asks a StringMaker.
inline doctest::String toString(errc code) {
  auto const text = detail::sentence(code);
  return doctest::String(text.data(), static_cast<unsigned>(text.size()));
}

}  // namespace strata

namespace doctest {

template <>
struct StringMaker<strata::layer_id> {
  static String convert(strata::layer_id layer) { return ("layer " + toString(layer.index)); }
};

template <>
struct StringMaker<strata::slot_id> {
  static String convert(strata::slot_id slot) { return ("slot " + toString(slot.index)); }
};

template <>
struct StringMaker<strata::status> {
  static String convert(strata::status const& s) {
    return String(strata::describe(s).c_str()) + " [layer " + toString(s.layer.index) + ", value " +
           toString(s.value) + ", bound " + toString(s.bound) + "]";
  }
};

/// The sources of K, then those of V.
template <>
struct StringMaker<strata::route_plan> {
  static String convert(strata::route_plan const& plan) {
    std::string text = "K";
    for (int l = 0; l < plan.num_layers; ++l)
      text += " " + std::to_string(plan.layers[l].k.source.index);
    text += " V";
    for (int l = 0; l < plan.num_layers; ++l)
      text += " " + std::to_string(plan.layers[l].v.source.index);
    return String(text.c_str());
  }
};

}  // namespace doctest
