// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// JSON from anywhere: as the standard has it, without comments, with every key once, and not so
// deep that who walks it runs out of stack.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "../failure.hpp"
#include "named.hpp"

namespace lm {

/// Objects are sorted trees: a million keys are found, and compared, in n log n.
using strict_json = nlohmann::json;

inline constexpr std::size_t deepest_json = 32;

/// `about` opens the messages. Throws where it is no JSON, has a key twice in one object or objects
/// and lists within more than `deepest_json` others.
inline strict_json parse_strictly(std::string_view text, std::string const& about) {
  // The parser would take it for the end, whatever follows.
  if (text.find('\0') != std::string_view::npos)
    throw failure(about + " is no JSON: it has a byte 0");
  std::vector<std::set<std::string>> open;  // keys of the objects and lists around
  auto const look = [&](int, strict_json::parse_event_t event, strict_json& parsed) {
    using at = strict_json::parse_event_t;
    if (event == at::object_start || event == at::array_start) {
      if (open.size() == deepest_json)
        throw failure(about + " is nested more than " + std::to_string(deepest_json) + " deep");
      open.emplace_back();
    }
    if (event == at::object_end || event == at::array_end) open.pop_back();
    if (event == at::key && !open.back().insert(parsed.get<std::string>()).second)
      throw failure(about + " has " + detail::quoted(parsed.get<std::string>()) +
                    " more than once");
    return true;
  };
  try {
    return strict_json::parse(text, look);
  } catch (strict_json::exception const& error) {
    throw failure(about + " is no JSON: " + error.what());
  }
}

/// A whole number from 0 on in an object or list, as JSON writes it: 3 and neither 3.0 nor "3".
inline bool to_count(strict_json const& json, std::int64_t& to) {
  constexpr auto most = std::uint64_t{std::numeric_limits<std::int64_t>::max()};
  if (!json.is_number_integer()) return false;
  if (json.is_number_unsigned() && json.get<std::uint64_t>() > most) return false;
  if (json.get<std::int64_t>() < 0) return false;
  to = json.get<std::int64_t>();
  return true;
}

/// A value in a message, cut where it is long.
inline std::string json_text(strict_json const& json) {
  auto const text = json.dump(-1, ' ', true, strict_json::error_handler_t::replace);
  return text.size() <= 80 ? text : text.substr(0, 77) + "...";
}

}  // namespace lm
