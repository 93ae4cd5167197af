// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The options that subcommands of strata-lm share, each spelled, bounded and described once.
#pragma once

#include <CLI/CLI.hpp>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "commands.hpp"
#include "shapes.hpp"
#include "units.hpp"

namespace lm {

inline constexpr char const* strategy_help =
    "Strategies S say which layers keep a K/V cache; every other one reads the nearest before it:\n"
    "  full            every layer keeps its own\n"
    "  every:K         layers 0, K, 2K, ...\n"
    "  spread:N        N layers, spread evenly\n"
    "  groups:2,3,...  the first layer of groups of these sizes, which add up to all layers\n"
    "  leaders:0,4,9   exactly these\n"
    "  tail:N          all but the last N\n";

inline constexpr char const* model_help =
    "a model that `strata-lm train` wrote, a GGUF file, or a folder as Hugging Face's transformers\n"
    "writes";

inline constexpr char const* adapters_help =
    "adapters of that model, as `train --adapters-out` and PEFT write them, to be added to it";

/// "a, b, c", with `before_last` in the place of the last comma.
inline std::string listed(std::vector<std::string> const& names,
                          std::string const& before_last = ", ") {
  std::string list;
  for (std::size_t i = 0; i < names.size(); ++i)
    list += (i == 0 ? "" : i + 1 == names.size() ? before_last : ", ") + names[i];
  return list;
}

/// Turns a name into its value, as CLI::CheckedTransformer does; but takes no number in its place,
/// and says what there is.
template <class T>
CLI::Validator one_of(std::vector<std::pair<std::string, T>> names) {
  auto const replace = [names = std::move(names)](std::string& given) {
    std::vector<std::string> all;
    for (auto const& [name, value] : names) {
      if (given == name) {
        given = std::to_string(static_cast<std::int64_t>(value));
        return std::string();
      }
      all.push_back(name);
    }
    return "'" + given + "' is none of " + listed(all);
  };
  return {replace, ""};
}

inline std::vector<std::pair<std::string, cache_codec>> codec_names() {
  std::vector<std::pair<std::string, cache_codec>> names;
  for (auto const one : cache_codecs) names.emplace_back(codec_name(one), one);
  return names;
}

/// "elements of K and V: f32, ... or rot_int4/int4 (K/V)".
inline std::string codec_help() {
  std::vector<std::string> names;
  for (auto const one : cache_codecs) names.emplace_back(codec_name(one));
  return "elements of K and V: " + listed(names, " or ") + " (K/V)";
}

/// A command whose options have one home, and what it runs in the end.
template <class Options>
class command {
 public:
  command(CLI::App& program, char const* name, std::string const& description, void (*run)(Options))
      : app_(*program.add_subcommand(name, description)) {
    app_.callback([options = options_, run] { run(*options); });
  }

  CLI::App& app() { return app_; }
  Options& options() { return *options_; }
  void footer(std::string const& examples, bool strategies = true) {
    app_.footer((strategies ? std::string(strategy_help) + "\n" : "") + examples);
  }

  CLI::Option* file(char const* name, std::string& path, char const* description) {
    return app_.add_option(name, path, description)
        ->check(CLI::ExistingFile.description(""))
        ->type_name("FILE");
  }
  CLI::Option* output(char const* name, std::string& path, char const* description) {
    return app_.add_option(name, path, description)->type_name("FILE");
  }
  CLI::Option* words(char const* name, std::string& value, char const* type,
                     char const* description) {
    return app_.add_option(name, value, description)->type_name(type)->capture_default_str();
  }
  /// A whole number between two bounds. Its default is shown unless the description says it.
  CLI::Option* count(char const* name, std::int32_t& value, std::int32_t low, std::int32_t high,
                     char const* description, bool show_default = true) {
    auto* const option = app_.add_option(name, value, description)
                             ->check(CLI::Range(low, high).description(""))
                             ->type_name("N");
    return show_default ? option->capture_default_str() : option;
  }
  /// One or more of them.
  CLI::Option* counts(char const* name, std::vector<std::int32_t>& values, std::int32_t low,
                      std::int32_t high, char const* description) {
    return app_.add_option(name, values, description)
        ->check(CLI::Range(low, high).description(""))
        ->type_name("N");
  }
  CLI::Option* number(char const* name, double& value, double low, double high,
                      char const* description, bool show_default = true) {
    auto* const option = app_.add_option(name, value, description)
                             ->check(CLI::Range(low, high).description(""))
                             ->check(finite())
                             ->type_name("X");
    return show_default ? option->capture_default_str() : option;
  }
  CLI::Option* seed(std::uint64_t& value) {
    return app_.add_option("--seed", value, "of all random numbers")
        ->type_name("N")
        ->capture_default_str();
  }
  CLI::Option* threads(std::int32_t& value) {
    return count("--threads", value, 0, 1024, "0: as many as the machine has");
  }
  /// A size with a unit, as 512MiB.
  CLI::Option* bytes(std::string const& name, std::int64_t& value, char const* description) {
    auto const take = [name, &value](std::string const& given) {
      auto const parsed = parse_bytes(given);
      if (!parsed || *parsed < 1)
        throw CLI::ValidationError(name, "'" + given +
                                             "' is no size; write bytes from 1 on, such as 4096, "
                                             "64KiB or 1.5GiB");
      value = *parsed;
    };
    return app_.add_option_function<std::string>(name, take, description)->type_name("BYTES");
  }
  /// What a command scores: text_options.
  void scored_text(bool with_stride) {
    auto& o = options();
    file("--text", o.text, "text to score [the King James Bible, from Debian's bible-kjv]");
    count("--hold-out", o.hold_out, 0, 1 << 20,
          "score only every N-th block of 16 KB, those that train kept out; 0: everything");
    count("--context", o.context, 2, 1 << 24, "tokens of a window [the model's context]", false);
    if (with_stride)
      count("--stride", o.stride, 1, 1 << 24, "tokens between windows [half the context]", false);
    bytes("--max-bytes", o.max_bytes, "score no more than so much text");
  }
  CLI::Option* strategies(std::vector<std::string>& values) {
    return app_.add_option("--strategy", values, "one or more strategies; see below")
        ->type_name("S...")
        ->capture_default_str();
  }
  /// `unless_given` is what it is where nobody says.
  template <class Codec>
  CLI::Option* codec(Codec& value, char const* unless_given) {
    return app_.add_option("--codec", value, codec_help())
        ->transform(one_of(codec_names()))
        ->type_name("C")
        ->default_str(unless_given);
  }
  CLI::Option* device(device_kind& value) {
    return app_
        .add_option("--device", value,
                    "cpu, or cuda: weights in bf16, K and V in bf16, int8 or fp8")
        ->transform(one_of(device_names()))
        ->type_name("D")
        ->default_str("cpu");
  }
  CLI::Option* weights(std::optional<weight_type>& value) {
    return app_
        .add_option(
            "--weights", value,
            "matrices of weights in f32, or in bf16: half the memory, and decoding waits for\n"
            "half the bytes; files with other numbers are rounded once")
        ->transform(one_of(weight_names()))
        ->type_name("W")
        ->default_str("bf16 if the file's are; else f32, on a device bf16");
  }
  CLI::Option* trained_model(std::string& path) {
    return app_.add_option("--model", path, model_help)
        ->check(CLI::ExistingPath.description(""))
        ->type_name("FILE")
        ->required();
  }
  CLI::Option* adapters(std::string& path) {
    return app_.add_option("--adapters", path, adapters_help)
        ->check(CLI::ExistingDirectory.description(""))
        ->type_name("FOLDER");
  }
  /// Exactly one of a trained model and a public model's shape.
  void model_or_shape(model_choice& choice) {
    auto& group = *app_.add_option_group("Model", "one of the two");
    group.add_option("--model", choice.file, model_help)
        ->check(CLI::ExistingPath.description(""))
        ->type_name("FILE");
    group.add_option("--shape", choice.shape, shape_names())->type_name("NAME");
    group.require_option(1);
  }

 private:
  /// A NaN is in no range and outside of none.
  static CLI::Validator finite() {
    auto const refuse = [](std::string const& given) {
      bool const number = std::isfinite(std::strtod(given.c_str(), nullptr));
      return number ? std::string() : "Value " + given + " is not finite";
    };
    return {refuse, ""};
  }

  CLI::App& app_;
  std::shared_ptr<Options> options_ = std::make_shared<Options>();
};

}  // namespace lm
