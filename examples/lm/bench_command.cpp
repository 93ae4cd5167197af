// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// strata-lm bench: decode speed and K/V memory at a context, full always among the strategies. How
// near a step is to what the machine could do at best: the bytes that it must read, at the rate at
// which memory is read right then, over its time.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bench_train.hpp"
#include "checkpoint.hpp"
#include "commands.hpp"
#include "evaluate.hpp"
#include "report.hpp"
#include "serving_place.hpp"
#include "step_bytes.hpp"
#include "table.hpp"

namespace lm {
namespace {

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
                   std::vector<strata::sequence_id> const& ids, serving_place& place) {
  auto const before = place.read_rate();
  row.decode_ms = decode_ms(serving, o, ids);
  row.read_bytes_per_second = std::max(before, place.read_rate());
  if (row.decode_ms > 0) row.decode_tokens_per_s = o.batch / row.decode_ms * 1e3;
  auto const& config = serving.config();
  auto const keys = o.context + warm_up + (o.steps + 1) / 2.0;  // of the middle step
  row.bytes_per_step = step_weight_bytes(row.what.plan, config, o.batch) +
                       step_kv_bytes(config, {o.codec, o.batch}, keys);
}

bench_row run_row(strategy what, serving_place& place, bench_options const& o) {
  bench_row row;
  row.what = std::move(what);
  auto const& config = place.config();
  cache_options const cache{o.codec, o.batch, o.context + o.steps + warm_up};
  step_room const room{std::max(prefill_chunk, o.batch), o.batch};
  row.kv_bytes = cache_bytes(row.what.plan, config, cache);
  try {
    if (o.kv_budget > 0)
      require_fit(row.kv_bytes, o.kv_budget, "K/V at " + row.what.given, "--kv-budget");
    require_fit(place.server_bytes(row.what.plan, cache, room), place.available_memory(),
                "serving at " + row.what.given, place.name());
  } catch (failure const& refusal) {
    row.refused = refusal.what();
    return row;
  }
  auto const serving = place.make_server(row.what.plan, cache, room);
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
  time_decoding(*serving, o, row, ids, place);
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
                     serving_place const& place) {
  json_value out = {{"machine", place.machine()},
                    {"kernels", place.kernels()},
                    {"name", o.model.name()},
                    {"model", to_json(place.config())},
                    {"context", o.context},
                    {"batch", o.batch},
                    {"codec", codec_name(o.codec)},
                    {"threads", place.threads()},
                    {"weight_bytes", weight_bytes(place.config(), place.device())}};
  out["strategies"] = json_value::array();
  for (auto const& row : rows) out["strategies"].push_back(row_json(row, rows.front(), o));
  return out;
}

std::unique_ptr<serving_place> open_place(bench_options const& o, model_config const& config) {
  place_options const where{device_kind::cpu, o.threads};
  if (o.model.shape.empty()) return open_model(o.model.file, where);
  return open_shape(config, o.model.name(), where);
}

void bench_serving(bench_options const& o) {
  auto const config = o.model.config();
  std::vector<strategy> strategies = {resolve_strategy("full", config)};
  for (auto const& given : o.strategies)
    if (given != "full") strategies.push_back(resolve_strategy(given, config));
  auto const place = open_place(o, config);
  std::printf("%s: %s of weights in f32; %d x %s tokens, K and V in %s, %s\n%s, %d threads; %s\n\n",
              o.model.name().c_str(), bytes_text(weight_bytes(config, place->device())).c_str(),
              o.batch, count_text(o.context).c_str(), codec_name(o.codec),
              o.prefill ? "filled by a prompt" : "filled with noise", place->machine().c_str(),
              place->threads(), place->kernels().c_str());
  live_text news(stderr);
  std::vector<bench_row> rows;
  for (auto& s : strategies) {
    news.show(text("%s: %d x %s tokens, %d decode steps\n", s.given.c_str(), o.batch,
                   count_text(o.context).c_str(), o.steps));
    auto row = run_row(std::move(s), *place, o);
    if (interrupted()) break;
    rows.push_back(std::move(row));
  }
  news.clear();
  if (rows.empty()) return;
  std::fputs(table_text(rows, o).c_str(), stdout);
  if (!o.json_file.empty()) write_json(o.json_file, rows_json(rows, o, *place));
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
  if (o.train) {
    strata::thread_pool pool(o.threads);
    return bench_training(o, pool);
  }
  if (o.context == 0) o.context = 4096;
  if (o.batch == 0) o.batch = 1;
  bench_serving(o);
}

}  // namespace lm
