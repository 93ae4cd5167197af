// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What eval and the demo write down for other programs. Losses are nats per token (a token is a
// byte unless the model says otherwise), times ms, sizes bytes.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "evaluate.hpp"
#include "output_file.hpp"

namespace lm {

/// Keys in the order in which they were put in: reports are read by people too.
using json_value = nlohmann::ordered_json;

/// One strategy of one model.
struct strategy_report {
  std::string strategy;               ///< as given
  std::vector<std::int32_t> leaders;  ///< layers that keep K/V
  double retention = 1;
  double loss = 0;
  double kv_bytes_per_token = 0;  ///< allocated K/V bytes / token capacity
  speed times;
};

/// A strategy's name in a narrow column.
inline std::string short_name(std::string const& strategy) {
  return strategy == "spread:1" ? "one leader" : strategy;
}

/// One model of the demo.
struct model_report {
  std::string name;
  std::int32_t layers = 0;
  std::string routing;
  std::int64_t parameters = 0;
  double train_seconds = 0;
  std::vector<strategy_report> strategies;
};

/// The demo's report.json.
struct demo_report {
  std::string machine;
  std::int64_t steps = 0;
  std::uint64_t seed = 0;
  std::vector<model_report> models;
};

inline json_value to_json(strategy_report const& r) {
  return {{"strategy", r.strategy},
          {"leaders", r.leaders},
          {"retention", r.retention},
          {"loss", r.loss},
          {"kv_bytes_per_token", r.kv_bytes_per_token},
          {"ttft_ms", r.times.ttft_ms},
          {"prefill_tokens_per_s", r.times.prefill_tokens_per_s},
          {"decode_tokens_per_s", r.times.decode_tokens_per_s}};
}

inline json_value to_json(std::vector<strategy_report> const& reports) {
  auto list = json_value::array();
  for (auto const& r : reports) list.push_back(to_json(r));
  return list;
}

inline json_value to_json(model_report const& r) {
  return {{"name", r.name},
          {"layers", r.layers},
          {"routing", r.routing},
          {"parameters", r.parameters},
          {"train_seconds", r.train_seconds},
          {"strategies", to_json(r.strategies)}};
}

inline json_value to_json(demo_report const& r) {
  json_value out = {{"machine", r.machine}, {"steps", r.steps}, {"seed", r.seed}};
  out["models"] = json_value::array();
  for (auto const& model : r.models) out["models"].push_back(to_json(model));
  return out;
}

inline void write_json(std::string const& path, json_value const& value) {
  write_text(path, value.dump(2) + "\n");
}

/// The processor and its cores, for example "AMD EPYC, 2 cores".
inline std::string machine_text() {
  std::string model = "unknown processor";
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (!line.starts_with("model name")) continue;
    model = line.substr(line.find(':') + 2);
    break;
  }
  return model + ", " + std::to_string(std::thread::hardware_concurrency()) + " cores";
}

}  // namespace lm
