// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The subcommands of strata-lm: what each one can be told, and the function that does it. Nothing
// here knows of a command line; command_line.cpp fills in the options. Every run_ function prints
// its results, throws `failure`, and ends early, with what it has, once `interrupted()`.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config.hpp"
#include "device.hpp"
#include "serving.hpp"
#include "weight_type.hpp"

namespace lm {

/// A trained model from a file, or a public model's shape without its weights: one of the two.
struct model_choice {
  std::string file;
  std::string shape;

  std::string const& name() const { return shape.empty() ? file : shape; }
  /// Reads no more of the file than it must. Throws.
  model_config config() const;
};

struct plan_options {
  model_choice model;
  std::int64_t budget = 0;   ///< bytes for K and V; 0: none stated
  std::int32_t context = 0;  ///< tokens per sequence; 0: the model's
  std::int32_t batch = 1;
  std::string text;            ///< plan for a context that holds this file
  double bytes_per_token = 0;  ///< of that text; 0: 1 for models of bytes, else 4
  cache_codec codec = cache_codec::f16;
  std::vector<std::string> strategies;  ///< none: full and all of every:K and spread:N
  double distance_weight = 1;           ///< of a choice among all sets of leaders: planner_goals
  double prefill_weight = 0;
  std::string sensitivities;  ///< a file of strata-lm sensitivity
};
void run_plan(plan_options options);

/// Of commands that score a text.
struct text_options {
  std::string text;            ///< a file; none: the King James Bible
  std::int32_t hold_out = 0;   ///< score only every so many-th 16 KB block; 0: everything
  std::int32_t context = 0;    ///< 0: the one trained with
  std::int32_t stride = 0;     ///< 0: half the context
  std::int64_t max_bytes = 0;  ///< of the text; 0: all
};

struct eval_options : text_options {
  std::string model, adapters;
  std::vector<std::string> strategies = {"full"};
  std::string probe;                 ///< "repeat", or none
  std::optional<cache_codec> codec;  ///< none: f32, on a device bf16
  std::int32_t threads = 0;
  device_kind device = device_kind::cpu;
  std::optional<weight_type> weights;  ///< none: as choose_weights says
  std::string json_file;
};
void run_eval(eval_options options);

/// Depth x bits.
struct bits_options : text_options {
  std::string model;
  std::vector<std::string> beside;  ///< further models, at full depth: equal bytes by other means
  std::vector<std::string> strategies = {"full", "every:2", "every:4", "spread:1"};
  std::vector<cache_codec> codecs;  ///< none: all
  std::int32_t threads = 0;
  std::string json_file;
  std::string picture;  ///< an .svg
};
void run_bits(bits_options options);

/// Fewer leaders from the middle of a text on.
struct shrink_options : text_options {
  std::vector<std::string> models;
  std::vector<std::string> strategies = {"full", "every:2", "every:4", "spread:1"};
  std::int32_t block_size = 16;
  std::int32_t threads = 0;
  std::string json_file;
};
void run_shrink(shrink_options options);

/// What each leader's removal costs.
struct sensitivity_options : text_options {
  std::string model, adapters;
  std::string strategy = "full";     ///< whose leaders are removed
  bool greedy = false;               ///< go on until one is left, each time without the cheapest
  std::optional<cache_codec> codec;  ///< none: f32, on a device bf16
  std::optional<weight_type> weights;
  std::int32_t threads = 0;
  device_kind device = device_kind::cpu;
  std::string json_file;
};
void run_sensitivity(sensitivity_options options);

struct generate_options {
  std::string model, adapters;
  std::string prompt;
  bool chat = false;                  ///< the prompt is a question in a conversation
  std::optional<std::string> system;  ///< what it is told first; none: what is usual for the model
  std::string strategy = "full";
  std::int32_t max_tokens = 256;
  double temperature = 0;  ///< 0: the likeliest token
  std::uint64_t seed = 0;
  std::int64_t kv_budget = 0;        ///< bytes; 0: what the machine has
  std::optional<cache_codec> codec;  ///< none: f32, on a device bf16
  std::int32_t threads = 0;
  device_kind device = device_kind::cpu;
  std::optional<weight_type> weights;  ///< none: as choose_weights says
};
void run_generate(generate_options options);

struct answer_options {
  std::string model, adapters;
  std::string questions;  ///< a file that read_questions reads
  std::vector<std::string> strategies = {"full"};
  std::vector<std::string> sets;     ///< none: all
  std::int32_t limit = 0;            ///< the first so many questions of each set; 0: all
  std::int32_t max_tokens = 32;      ///< of an answer
  std::int32_t context = 0;          ///< tokens of a question and its answer; 0: the model's
  std::int32_t batch = 32;           ///< questions at a time
  std::optional<cache_codec> codec;  ///< none: f32, on a device bf16
  std::optional<weight_type> weights;
  std::int32_t threads = 0;
  device_kind device = device_kind::cpu;
  std::string json_file;
  std::string answers_file;  ///< a line for each answer
};
void run_answer(answer_options options);

struct bench_options {
  model_choice model;
  std::vector<std::int32_t> contexts;   ///< a table each; none: 4096; with train the model's
  std::vector<std::int32_t> batches;    ///< likewise; none: 1; with train 16
  std::vector<std::string> strategies;  ///< none: every:2, every:4 and every:8
  std::int32_t steps = 32;              ///< decode (or training) steps that are timed
  bool prefill = false;                 ///< run the prompt instead of filling the cache with noise
  bool train = false;                   ///< time the training step instead
  bool paper = false;                   ///< the paper's contexts and batches, and its figures
  std::int64_t kv_budget = 0;           ///< bytes; 0: what the place has
  std::optional<cache_codec> codec;     ///< none: f16, on a device bf16
  std::int32_t threads = 0;
  device_kind device = device_kind::cpu;
  std::optional<weight_type> weights;  ///< none: as choose_weights says
  std::string json_file;
};
void run_bench(bench_options options);

struct demo_options {
  model_config shape;  ///< of the deep models; no argument changes it
  double minutes = 5;
  std::string text;  ///< a file; none: the King James Bible
  std::string out = "build/demo/report";
  std::int32_t steps = 0;  ///< 0: as many as fit the time
  std::uint64_t seed = 1;
  std::int32_t threads = 0;
  std::int64_t eval_bytes = -1;   ///< of held-out text for the last table; 0: all; -1: 32 KB
  std::vector<std::string> also;  ///< routings of further models
  std::int32_t seeds = 1;         ///< runs with seeds seed, seed + 1, ...
  std::string study;              ///< file for what several seeds have in common
};
void run_demo(demo_options options);

}  // namespace lm
