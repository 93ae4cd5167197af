// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A model's shape in the header of a checkpoint.
#pragma once

#include <cstdint>
#include <string>

#include <nlohmann/json.hpp>

#include "config.hpp"
#include "failure.hpp"

namespace lm {

namespace detail {

inline nlohmann::ordered_json to_json(rope_scaling const& s) {
  nlohmann::ordered_json json = {{"kind", name_of(s.kind)}, {"factor", s.factor}};
  if (s.kind != rope_scaling_kind::llama3) return json;
  json["low_freq_factor"] = s.low;
  json["high_freq_factor"] = s.high;
  json["original_context"] = s.original_context;
  return json;
}

inline rope_scaling rope_scaling_from_json(nlohmann::ordered_json const& json) {
  rope_scaling s;
  auto const given = json.at("kind").get<std::string>();
  for (auto const kind : rope_scaling_kinds)
    if (given == name_of(kind)) s.kind = kind;
  if (given != name_of(s.kind)) throw failure("rope_scaling: there is no kind '" + given + "'");
  json.at("factor").get_to(s.factor);
  if (s.kind != rope_scaling_kind::llama3) return s;
  json.at("low_freq_factor").get_to(s.low);
  json.at("high_freq_factor").get_to(s.high);
  auto const context = json.at("original_context").get<std::int64_t>();
  s.original_context = static_cast<std::int32_t>(context);
  if (s.original_context != context)
    throw failure("rope_scaling: original_context is " + std::to_string(context));
  return s;
}

}  // namespace detail

/// Files of models without RoPE scaling are as they were before there was one.
inline nlohmann::ordered_json to_json(model_config const& c) {
  nlohmann::ordered_json json = {{"layers", c.layers},
                                 {"dim", c.dim},
                                 {"q_heads", c.q_heads},
                                 {"kv_heads", c.kv_heads},
                                 {"head_dim", c.head_dim},
                                 {"mlp", c.mlp},
                                 {"vocab", c.vocab},
                                 {"context", c.context},
                                 {"rope_theta", c.rope_theta},
                                 {"norm_epsilon", c.norm_epsilon},
                                 {"qk_norm", c.qk_norm},
                                 {"window", c.window},
                                 {"tied", c.tied}};
  if (c.rope_scaling.kind != rope_scaling_kind::none)
    json["rope_scaling"] = detail::to_json(c.rope_scaling);
  return json;
}

/// Throws where a member is missing or of another type, or `config.check()` refuses.
inline model_config config_from_json(nlohmann::ordered_json const& json) {
  model_config c;
  auto const integer = [&](char const* name, std::int32_t& value) {
    auto const given = json.at(name).get<std::int64_t>();
    value = static_cast<std::int32_t>(given);
    if (value != given) throw failure(std::string(name) + " is " + std::to_string(given));
  };
  integer("layers", c.layers);
  integer("dim", c.dim);
  integer("q_heads", c.q_heads);
  integer("kv_heads", c.kv_heads);
  integer("head_dim", c.head_dim);
  integer("mlp", c.mlp);
  integer("vocab", c.vocab);
  integer("context", c.context);
  integer("window", c.window);
  json.at("rope_theta").get_to(c.rope_theta);
  json.at("norm_epsilon").get_to(c.norm_epsilon);
  json.at("qk_norm").get_to(c.qk_norm);
  json.at("tied").get_to(c.tied);
  if (json.contains("rope_scaling"))
    c.rope_scaling = detail::rope_scaling_from_json(json.at("rope_scaling"));
  if (auto const wrong = c.check(); !wrong.empty()) throw failure(wrong);
  return c;
}

}  // namespace lm
