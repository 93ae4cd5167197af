// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// strata-lm bench: decode speed and K/V memory at a context, full always among the strategies. How
// near a step is to what the machine could do at best: the bytes that it must read, at the rate at
// which memory is read right then, over its time.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "bench_train.hpp"
#include "checkpoint.hpp"
#include "commands.hpp"
#include "evaluate.hpp"
#include "gemm.hpp"
#include "read_rate.hpp"
#include "report.hpp"
#include "step_bytes.hpp"
#include "table.hpp"

namespace lm {
namespace {

/// Tokens of a prefill step: enough rows for the products, and bounded activations.
constexpr std::int32_t prefill_chunk = 512;

/// Weights of the right size and deviation, fast: a hash of the index instead of the normal numbers
/// of `initialise`, which take minutes for billions of them.
void fill_quickly(parameters<float>& model, strata::thread_pool& pool) {
  auto const values = model.values();
  constexpr std::size_t part = 1 << 20;
  for_tasks(pool, static_cast<std::int64_t>((values.size() + part - 1) / part),
            [&](std::int64_t task, std::int32_t) {
              auto const begin = static_cast<std::size_t>(task) * part;
              auto const end = std::min(begin + part, values.size());
              for (auto i = begin; i < end; ++i) {
                auto bits = static_cast<std::uint32_t>(i) * 0x9E3779B9U;
                bits = (bits ^ bits >> 15) * 0x85EBCA6BU;
                values[i] = (static_cast<float>(bits >> 8) * 0x1p-24F - 0.5F) * 0.069F;
              }
            });
  for (auto const& entry : model.table().entries)
    if (entry.role == tensor_role::norm) std::ranges::fill(model.tensor(entry), 1.0F);
}

std::int64_t weight_bytes(model_config const& config) {
  return make_tensor_table(config).size * static_cast<std::int64_t>(sizeof(float));
}

parameters<float> weights_for(bench_options const& o, model_config const& config,
                              strata::thread_pool& pool) {
  if (o.model.shape.empty()) return load_checkpoint(o.model.file, false).weights;
  require_fit(weight_bytes(config), available_memory(), "the weights of " + o.model.name(),
              "this machine");
  parameters<float> model(config);
  fill_quickly(model, pool);
  return model;
}

struct bench_row {
  strategy what;
  std::int64_t kv_bytes = 0;  // allocated, or what would have been
  std::string refused;        // why it did not run, or empty
  double kv_bytes_per_token = 0;
  double ttft_ms = 0;  // of the first sequence, with --prefill
  double prefill_tokens_per_s = 0;
  double decode_ms = 0;  // median step of the batch
  double decode_tokens_per_s = 0;
  double bytes_per_step = 0;         // of weights and K/V, read
  double read_bytes_per_second = 0;  // by the machine, beside the steps
  double fraction_of_roofline() const {
    auto const best_ms = bytes_per_step / read_bytes_per_second * 1e3;
    return decode_ms > 0 ? best_ms / decode_ms : 0;
  }
};

/// Steps whose time does not count.
constexpr std::int32_t warm_up = 2;

/// Fills the cache of every sequence, by its prompt or with noise.
void fill_caches(server<float>& serving, bench_options const& o, bench_row& row,
                 std::vector<strata::sequence_id> const& ids) {
  std::vector<std::int32_t> prompt(static_cast<std::size_t>(o.context));
  for (std::size_t i = 0; i < prompt.size(); ++i)
    prompt[i] = static_cast<std::int32_t>(i * 7919 % 251);  // below every vocabulary
  stopwatch const clock;
  for (auto const id : ids) {
    auto const outcome = o.prefill ? prefill<float>(serving, id, prompt, prefill_chunk)
                                   : serving.fill_with_noise(id, o.context);
    require(outcome, "filling the cache of " + row.what.given);
    if (id == ids.front()) row.ttft_ms = clock.seconds() * 1e3;
  }
  row.prefill_tokens_per_s =
      static_cast<double>(o.context) * static_cast<double>(ids.size()) / clock.seconds();
}

/// Median time of a decode step of the whole batch, two warm-up steps left out.
double decode_ms(server<float>& serving, bench_options const& o,
                 std::vector<strata::sequence_id> const& ids) {
  std::int32_t const token = 42;
  std::vector<feed> batch;
  for (auto const id : ids) batch.push_back({id, std::span(&token, 1), strata::logits::last});
  std::vector<double> times;
  for (std::int32_t i = 0; i < o.steps + warm_up && !interrupted(); ++i) {
    stopwatch const clock;
    require(serving.run(batch), "decoding");
    if (i >= warm_up) times.push_back(clock.seconds() * 1e3);
  }
  if (times.empty()) return 0;
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2),
                   times.end());
  return times[times.size() / 2];
}

/// Times decoding between two looks at how fast memory is.
void time_decoding(server<float>& serving, bench_options const& o, bench_row& row,
                   std::vector<strata::sequence_id> const& ids, strata::thread_pool& pool,
                   read_probe& probe) {
  auto const before = probe.rate(pool);
  row.decode_ms = decode_ms(serving, o, ids);
  row.read_bytes_per_second = std::max(before, probe.rate(pool));
  if (row.decode_ms > 0) row.decode_tokens_per_s = o.batch / row.decode_ms * 1e3;
  auto const& config = serving.config();
  auto const keys = o.context + warm_up + (o.steps + 1) / 2.0;  // of the middle step
  row.bytes_per_step = step_weight_bytes(row.what.plan, config, o.batch) +
                       step_kv_bytes(config, {o.codec, o.batch}, keys);
}

bench_row run_row(strategy what, parameters<float> const& model, strata::thread_pool& pool,
                  bench_options const& o, read_probe& probe) {
  bench_row row;
  row.what = std::move(what);
  cache_options const cache{o.codec, o.batch, o.context + o.steps + warm_up};
  row.kv_bytes = cache_bytes(row.what.plan, model.config(), cache);
  try {
    if (o.kv_budget > 0)
      require_fit(row.kv_bytes, o.kv_budget, "K/V at " + row.what.given, "--kv-budget");
    require_fit(server_bytes(row.what.plan, model.config(), cache), available_memory(),
                "serving at " + row.what.given, "this machine");
  } catch (failure const& refusal) {
    row.refused = refusal.what();
    return row;
  }
  auto const serving = make_server(model, pool, row.what.plan, cache);
  row.kv_bytes = serving->allocated_bytes();
  row.kv_bytes_per_token =
      static_cast<double>(row.kv_bytes) / (static_cast<double>(cache.max_tokens) * o.batch);
  std::vector<strata::sequence_id> ids;
  for (std::int32_t i = 0; i < o.batch; ++i) {
    auto const id = serving->open(row.what.plan);
    require(id.state(), "opening a sequence");
    ids.push_back(*id);
  }
  fill_caches(*serving, o, row, ids);
  time_decoding(*serving, o, row, ids, pool, probe);
  return row;
}

std::string ratio_text(double rate, double full) {
  return full > 0 && rate > 0 ? text("%.2f", rate / full) : "-";
}

std::string table_text(std::vector<bench_row> const& rows, bench_options const& o) {
  std::vector<std::string> header = {"strategy", "leaders",      "retention", "K/V",
                                     "step ms",  "decode tok/s", "vs full",   "of roofline"};
  if (o.prefill) header.insert(header.end(), {"ttft ms", "prefill tok/s", "vs full"});
  text_table table(header);
  auto const& full = rows.front();
  for (auto const& row : rows) {
    std::vector<std::string> cells = {row.what.given, leaders_text(row.what.leaders),
                                      text("%.1f %%", 100 * row.what.retention),
                                      bytes_text(row.kv_bytes)};
    if (!row.refused.empty()) {
      cells.push_back("refused");
    } else {
      cells.insert(cells.end(), {rate_text(row.decode_ms), rate_text(row.decode_tokens_per_s),
                                 ratio_text(row.decode_tokens_per_s, full.decode_tokens_per_s),
                                 ratio_text(row.fraction_of_roofline(), 1)});
      if (o.prefill)
        cells.insert(cells.end(),
                     {rate_text(row.ttft_ms), rate_text(row.prefill_tokens_per_s),
                      ratio_text(row.prefill_tokens_per_s, full.prefill_tokens_per_s)});
    }
    table.add(std::move(cells));
  }
  auto out = table.text();
  for (auto const& row : rows)
    if (!row.refused.empty()) out += "  " + row.refused + "\n";
  return out;
}

json_value row_json(bench_row const& row, bench_row const& full, bench_options const& o) {
  json_value out = {{"strategy", row.what.given},
                    {"leaders", row.what.leaders},
                    {"retention", row.what.retention},
                    {"kv_bytes", row.kv_bytes}};
  if (!row.refused.empty()) {
    out["refused"] = row.refused;
    return out;
  }
  out["kv_bytes_per_token"] = row.kv_bytes_per_token;
  out["decode_ms"] = row.decode_ms;
  out["decode_tokens_per_s"] = row.decode_tokens_per_s;
  if (full.decode_tokens_per_s > 0)
    out["ratio_to_full"] = row.decode_tokens_per_s / full.decode_tokens_per_s;
  out["bytes_per_step"] = row.bytes_per_step;
  out["read_bytes_per_second"] = row.read_bytes_per_second;
  out["fraction_of_roofline"] = row.fraction_of_roofline();
  if (o.prefill) out["ttft_ms"] = row.ttft_ms;
  if (o.prefill) out["prefill_tokens_per_s"] = row.prefill_tokens_per_s;
  return out;
}

json_value rows_json(std::vector<bench_row> const& rows, bench_options const& o,
                     model_config const& config, std::int32_t threads) {
  json_value out = {{"machine", machine_text()},
                    {"kernels", kernels_text()},
                    {"name", o.model.name()},
                    {"model", to_json(config)},
                    {"context", o.context},
                    {"batch", o.batch},
                    {"codec", codec_name(o.codec)},
                    {"threads", threads},
                    {"weight_bytes", weight_bytes(config)}};
  out["strategies"] = json_value::array();
  for (auto const& row : rows) out["strategies"].push_back(row_json(row, rows.front(), o));
  return out;
}

void bench_serving(bench_options const& o, strata::thread_pool& pool) {
  auto const config = o.model.config();
  std::vector<strategy> strategies = {resolve_strategy("full", config)};
  for (auto const& given : o.strategies)
    if (given != "full") strategies.push_back(resolve_strategy(given, config));
  auto const model = weights_for(o, config, pool);
  std::printf("%s: %s of weights in f32; %d x %s tokens, K and V in %s, %s\n%s, %d threads; %s\n\n",
              o.model.name().c_str(), bytes_text(weight_bytes(config)).c_str(), o.batch,
              count_text(o.context).c_str(), codec_name(o.codec),
              o.prefill ? "filled by a prompt" : "filled with noise", machine_text().c_str(),
              pool.num_shares(), kernels_text().c_str());
  read_probe probe;
  live_text news(stderr);
  std::vector<bench_row> rows;
  for (auto& s : strategies) {
    news.show(text("%s: %d x %s tokens, %d decode steps\n", s.given.c_str(), o.batch,
                   count_text(o.context).c_str(), o.steps));
    auto row = run_row(std::move(s), model, pool, o, probe);
    if (interrupted()) break;
    rows.push_back(std::move(row));
  }
  news.clear();
  if (rows.empty()) return;
  std::fputs(table_text(rows, o).c_str(), stdout);
  if (!o.json_file.empty()) write_json(o.json_file, rows_json(rows, o, config, pool.num_shares()));
  bool const none_ran = std::ranges::all_of(rows, [](auto& row) { return !row.refused.empty(); });
  if (none_ran && !interrupted())
    throw failure(
        "no strategy fits; the smallest cache needs " +
            count_text(std::ranges::min_element(rows, {}, &bench_row::kv_bytes)->kv_bytes) +
            " bytes",
        exit_code::does_not_fit);
}

}  // namespace

void run_bench(bench_options o) {
  require_writable("--json", o.json_file);
  strata::thread_pool pool(o.threads);
  if (o.train) return bench_training(o, pool);
  if (o.context == 0) o.context = 4096;
  if (o.batch == 0) o.batch = 1;
  bench_serving(o, pool);
}

}  // namespace lm
