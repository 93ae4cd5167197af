// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Everything that decides a trained model's bits: one value that the command line fills, a
// checkpoint keeps and a resumed run reads back.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include <strata/router.hpp>
#include <strata/routing/any_sampler.hpp>
#include <strata/routing/probability.hpp>

#include "checkpoint.hpp"
#include "config.hpp"
#include "dropout.hpp"
#include "failure.hpp"
#include "optimizer.hpp"

namespace lm {

struct training_options {
  model_config model;
  optimizer_options optimizer;
  std::vector<std::string> text;  ///< files; none: the King James Bible
  std::int32_t hold_out = 0;      ///< every Nth block of 16 KiB is kept out; 0: none
  std::string routing = "rcla:0.6";
  std::string schedule;             ///< of self_probability over steps, "P0:P1[:from]", or empty
  std::string depth_schedule;       ///< over layers, "P0:P1", or empty
  std::int32_t batch = 16;          ///< sequences in a step
  std::int32_t length = 0;          ///< tokens of a sequence; 0: as many as the model is made for
  std::int32_t draws_per_step = 1;  ///< micro-batches, each under a route of its own
  std::int64_t steps = 1200;
  std::uint64_t seed = 1;
  bool stop_source_gradient = false;
  std::string questions;      ///< a file of questions to train on instead of text, or empty
  bool answers_only = false;  ///< of questions: their context does not count
  bool full_half = false;     ///< the first half of each batch is not routed
  double distill = 0;         ///< with full_half: the share of it in the other half's targets
  double dropout = 0;         ///< share of what attention and MLP read, see dropout.hpp
  std::int32_t lora = 0;      ///< rank of the adapters that are trained alone; 0: all weights

  std::int32_t sequence_length() const noexcept { return length > 0 ? length : model.context; }
  std::int64_t tokens_per_step() const noexcept { return std::int64_t{batch} * sequence_length(); }

  /// Empty, or the argument as the command line spells it, its value and its bound. The strings
  /// are left to `make_sampler`.
  std::string check() const;
  friend bool operator==(training_options const&, training_options const&) = default;
};

inline std::string training_options::check() const {
  if (auto s = model.check(); !s.empty()) return s;
  if (auto s = optimizer.check(); !s.empty()) return s;
  constexpr std::int64_t most_in_batch = 1 << 24;
  if (model.vocab < 256)
    return "--vocab is " + std::to_string(model.vocab) +
           "; text is bytes or more, so it must be from 256 on";
  for (auto s : {detail::check_range("--context", length, 0, model.context),
                 detail::check_range("--batch", batch, 1, most_in_batch / sequence_length()),
                 detail::check_range("--draws-per-step", draws_per_step, 1, batch),
                 detail::check_range("--steps", steps, 1, std::int64_t{1} << 40),
                 detail::check_range("--hold-out", hold_out, 0, 1 << 20)})
    if (!s.empty()) return s;
  if (hold_out == 1) return "--hold-out is 1; it must be 0 or from 2 on";
  if (auto s = detail::check_range("--lora", lora, 0, model.dim); !s.empty()) return s;
  if (!(distill >= 0 && distill <= 1))
    return "--distill is " + std::to_string(distill) + "; it must be from 0 to 1";
  if (!(dropout >= 0 && dropout <= lm::dropout::highest_rate))
    return "--dropout is " + std::to_string(dropout) + "; it must be from 0 to 0.9375";
  if (distill > 0 && !full_half) return "--distill needs --full-half, whose predictions it teaches";
  if (full_half && batch % 2 != 0)
    return "--batch is " + std::to_string(batch) + "; it must be even with --full-half";
  if (full_half && draws_per_step > batch / 2)
    return "--draws-per-step is " + std::to_string(draws_per_step) +
           "; it must be at most half of --batch with --full-half";
  if (answers_only && questions.empty()) return "--answers-only needs --questions";
  return "";
}

/// Sequences of a run's largest pass, and tokens of each.
inline strata::pass_shape largest_pass(training_options const& o) noexcept {
  auto const routed = o.full_half ? o.batch / 2 : o.batch;
  auto const part = (routed + o.draws_per_step - 1) / o.draws_per_step;
  return {o.full_half ? routed : part, o.sequence_length()};
}

namespace detail {

/// Numbers between colons, as many as there are; throws where a field is no number.
inline std::vector<double> numbers_of(std::string const& argument, std::string const& text) {
  std::vector<double> numbers;
  std::size_t begin = 0;
  while (begin <= text.size()) {
    auto const end = std::min(text.find(':', begin), text.size());
    auto const field = text.substr(begin, end - begin);
    char* stop = nullptr;
    auto const number = std::strtod(field.c_str(), &stop);
    if (field.empty() || *stop != '\0' || !(number >= 0 && number <= 1))
      throw failure(argument + " is '" + text + "': '" + field + "' is no number from 0 to 1",
                    exit_code::wrong_use);
    numbers.push_back(number);
    begin = end + 1;
  }
  return numbers;
}

}  // namespace detail

/// The self_probability that --schedule or --depth-schedule means.
inline strata::probability_schedule make_schedule(training_options const& o) {
  bool const over_depth = !o.depth_schedule.empty();
  std::string const argument = over_depth ? "--depth-schedule" : "--schedule";
  std::string const& text = over_depth ? o.depth_schedule : o.schedule;
  auto const numbers = detail::numbers_of(argument, text);
  if (numbers.size() < 2 || numbers.size() > (over_depth ? 2U : 3U))
    throw failure(argument + " is '" + text + "'; it takes the form " +
                      (over_depth ? "P0:P1" : "P0:P1 or P0:P1:from"),
                  exit_code::wrong_use);
  if (over_depth)
    return strata::probability_schedule::over_depth(numbers[0], numbers[1], o.model.layers);
  auto const steps = static_cast<double>(o.steps);
  auto const last = static_cast<std::uint64_t>(o.steps - 1);
  if (numbers.size() == 2)
    return strata::probability_schedule::over_steps(numbers[0], numbers[1], 0, last);
  auto const from = static_cast<std::uint64_t>(numbers[2] * steps + 0.5);
  return strata::probability_schedule::over_steps(numbers[0], numbers[1], from, from);
}

/// The sampler that --routing and the schedules mean. Throws with a mark under what cannot be.
inline strata::any_sampler make_sampler(training_options const& o) {
  auto const parsed = strata::parse_routing(o.routing, o.model.classes());
  require(parsed.state(), "--routing", o.routing);
  auto sampler = *parsed;
  if (o.schedule.empty() && o.depth_schedule.empty()) return sampler;
  if (!o.schedule.empty() && !o.depth_schedule.empty())
    throw failure("--schedule and --depth-schedule exclude each other", exit_code::wrong_use);
  if (!sampler.set_self_probability(make_schedule(o)).ok())
    throw failure(
        "a schedule of P(self) needs --routing rcla:P or rdcla:K:P, not '" + o.routing + "'",
        exit_code::wrong_use);
  return sampler;
}

/// All but the model's shape, which a checkpoint keeps apart.
inline nlohmann::ordered_json to_json(training_options const& o) {
  return {{"text", o.text},
          {"hold_out", o.hold_out},
          {"routing", o.routing},
          {"schedule", o.schedule},
          {"depth_schedule", o.depth_schedule},
          {"batch", o.batch},
          {"length", o.length},
          {"draws_per_step", o.draws_per_step},
          {"steps", o.steps},
          {"seed", o.seed},
          {"stop_source_gradient", o.stop_source_gradient},
          {"questions", o.questions},
          {"answers_only", o.answers_only},
          {"full_half", o.full_half},
          {"distill", o.distill},
          {"dropout", o.dropout},
          {"lora", o.lora},
          {"lr", o.optimizer.lr},
          {"weight_decay", o.optimizer.weight_decay},
          {"beta1", o.optimizer.beta1},
          {"beta2", o.optimizer.beta2},
          {"epsilon", o.optimizer.epsilon},
          {"clip", o.optimizer.clip},
          {"warmup", o.optimizer.warmup},
          {"decay", o.optimizer.decay == decay_form::cosine ? "cosine" : "linear"}};
}

/// Throws nlohmann::json::exception where something is missing or of another type.
inline training_options options_from_json(nlohmann::ordered_json const& json,
                                          model_config const& model) {
  training_options o;
  o.model = model;
  json.at("text").get_to(o.text);
  json.at("hold_out").get_to(o.hold_out);
  json.at("routing").get_to(o.routing);
  json.at("schedule").get_to(o.schedule);
  json.at("depth_schedule").get_to(o.depth_schedule);
  json.at("batch").get_to(o.batch);
  json.at("draws_per_step").get_to(o.draws_per_step);
  json.at("steps").get_to(o.steps);
  json.at("seed").get_to(o.seed);
  json.at("stop_source_gradient").get_to(o.stop_source_gradient);
  // Files of before these were there lack them.
  o.length = json.value("length", o.length);
  o.questions = json.value("questions", o.questions);
  o.answers_only = json.value("answers_only", o.answers_only);
  o.full_half = json.value("full_half", o.full_half);
  o.distill = json.value("distill", o.distill);
  o.dropout = json.value("dropout", o.dropout);
  o.lora = json.value("lora", o.lora);
  json.at("lr").get_to(o.optimizer.lr);
  json.at("weight_decay").get_to(o.optimizer.weight_decay);
  json.at("beta1").get_to(o.optimizer.beta1);
  json.at("beta2").get_to(o.optimizer.beta2);
  json.at("epsilon").get_to(o.optimizer.epsilon);
  json.at("clip").get_to(o.optimizer.clip);
  json.at("warmup").get_to(o.optimizer.warmup);
  o.optimizer.decay =
      json.at("decay").get<std::string>() == "linear" ? decay_form::linear : decay_form::cosine;
  return o;
}

}  // namespace lm
