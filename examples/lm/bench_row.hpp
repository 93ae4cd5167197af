// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A line of bench: what a strategy costs at a context and a batch, which needs no machine, and what
// a machine made of it, where one ran it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "prompt_work.hpp"
#include "serving.hpp"
#include "step_bytes.hpp"

namespace lm {

/// Decode steps whose time does not count. A device's server runs the first as it comes, records the
/// second and plays the record from the third on.
inline constexpr std::int32_t warm_up = 3;

/// What all lines of a table have in common.
struct bench_case {
  std::int32_t context = 4096;  ///< tokens of each sequence's prompt
  std::int32_t batch = 1;       ///< sequences
  std::int32_t steps = 32;      ///< decode steps that are timed, warm_up more come before them

  std::int32_t generated() const { return steps + warm_up; }  ///< tokens of each sequence
  cache_options cache(cache_codec codec) const { return {codec, batch, context + generated()}; }
};

/// Known before anything runs.
struct serving_cost {
  std::int64_t kv_bytes = 0;  ///< of prompts and generated tokens, as storages allocate them
  double step_bytes = 0;      ///< weights and K/V that the middle of the timed steps reads
  double prompt_flops = 0;    ///< of one sequence
  double prompt_bytes = 0;    ///< likewise, read and written
};

inline serving_cost cost_of(strata::route_plan const& plan, model_config const& config,
                            cache_codec codec, std::int64_t weight_bytes_each,
                            bench_case const& table) {
  auto const keys = table.context + warm_up + (table.steps + 1) / 2.0;  // of the middle step
  auto const cache = table.cache(codec);
  return {cache_bytes(plan, config, cache),
          step_weight_bytes(plan, config, table.batch, weight_bytes_each) +
              step_kv_bytes(config, cache, keys),
          prompt_flops(plan, config, table.context),
          prompt_bytes(plan, config, weight_bytes_each, codec, table.context)};
}

struct bench_row {
  strategy what;
  serving_cost cost;
  std::string missing;  ///< why it did not run, or empty

  // Measured; 0 where it was not.
  std::int64_t peak_bytes = 0;  ///< weights, K and V, activations
  double ttft_ms = 0;           ///< of the first sequence, with --prefill
  double prefill_tokens_per_s = 0;
  double decode_ms = 0;  ///< median step of the batch
  double decode_tokens_per_s = 0;
  double read_bytes_per_second = 0;     ///< by the machine, beside the steps
  double product_flops_per_second = 0;  ///< likewise, beside the prompts

  bool ran() const { return missing.empty(); }

  /// The time that a decode step needs at least, at the rate at which memory was read beside it.
  double best_decode_ms() const {
    return read_bytes_per_second > 0 ? cost.step_bytes / read_bytes_per_second * 1e3 : 0;
  }
  /// The same of the first token: its products, or what it reads and writes.
  double best_ttft_ms() const {
    if (product_flops_per_second <= 0 || read_bytes_per_second <= 0) return 0;
    return std::max(cost.prompt_flops / product_flops_per_second,
                    cost.prompt_bytes / read_bytes_per_second) *
           1e3;
  }
  double decode_fraction() const { return decode_ms > 0 ? best_decode_ms() / decode_ms : 0; }
  double ttft_fraction() const { return ttft_ms > 0 ? best_ttft_ms() / ttft_ms : 0; }
};

/// How many times as fast as full a strategy is; 0 where one of the two was not measured.
struct gains {
  double ttft = 0, decode = 0;
};
inline gains measured_gains(bench_row const& row, bench_row const& full) {
  return {row.ttft_ms > 0 ? full.ttft_ms / row.ttft_ms : 0,
          row.decode_ms > 0 ? full.decode_ms / row.decode_ms : 0};
}
/// What the roofline says of that, and needs no machine for: a decode step waits for its bytes, a
/// prompt for its operations.
inline gains predicted_gains(bench_row const& row, bench_row const& full) {
  return {full.cost.prompt_flops / row.cost.prompt_flops,
          full.cost.step_bytes / row.cost.step_bytes};
}

}  // namespace lm
