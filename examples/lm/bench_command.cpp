// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// strata-lm bench: the time to the first token, decode speed and memory at contexts and batches,
// full always among the strategies. How near a step is to what the machine could do at best: the
// bytes that it must read, at the rate at which memory is read right then, over its time.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bench_report.hpp"
#include "bench_train.hpp"
#include "blas_rate.hpp"
#include "checkpoint.hpp"
#include "commands.hpp"
#include "evaluate.hpp"
#include "published.hpp"
#include "serving_place.hpp"

namespace lm {
namespace {

/// Throws does_not_fit where memory ended.
void require_room(strata::status const& outcome, std::string const& doing) {
  if (outcome.code == strata::errc::out_of_memory)
    throw failure(doing + ": " + strata::describe(outcome).c_str(), exit_code::does_not_fit);
  require(outcome, doing);
}

/// One line of a table while its server lives.
class bench_run {
 public:
  bench_run(serving_place& place, bench_row& row, bench_case const& about, cache_codec codec,
            bool prefill)
      : place_(place), row_(row), about_(about), prefill_(prefill) {
    chunk_ = std::min(place.prefill_rows(), about.context);
    step_room const room{std::max(chunk_, about.batch), about.batch};
    auto const cache = about.cache(codec);
    require_fit(place.server_bytes(row.what.plan, cache, room), place.available_memory(),
                "serving at " + row.what.given, place.name());
    look_at_rates();  // before memory is full
    serving_ = place.make_server(row.what.plan, cache, room);
    row.cost.kv_bytes = serving_->allocated_bytes();
    for (std::int32_t i = 0; i < about.batch; ++i) {
      auto const id = serving_->open(row.what.plan);
      require_room(id.state(), "opening a sequence");
      ids_.push_back(*id);
    }
  }

  void measure(std::int32_t steps) {
    fill_caches();
    row_.decode_ms = decode_ms(steps);
    if (row_.decode_ms > 0) row_.decode_tokens_per_s = about_.batch / row_.decode_ms * 1e3;
    row_.peak_bytes = place_.used_memory(*serving_);
    look_at_rates();
  }

 private:
  /// How fast memory and products are, before and after: the better of two looks.
  void look_at_rates() {
    row_.read_bytes_per_second = std::max(row_.read_bytes_per_second, place_.read_rate());
    if (!prefill_) return;
    row_.product_flops_per_second =
        std::max(row_.product_flops_per_second, place_.product_rate(chunk_));
  }

  /// Fills the cache of every sequence, by its prompt or with noise.
  void fill_caches() {
    std::vector<std::int32_t> prompt(static_cast<std::size_t>(about_.context));
    for (std::size_t i = 0; i < prompt.size(); ++i)
      prompt[i] = static_cast<std::int32_t>(i * 7919 % 251);  // below every vocabulary
    if (prefill_) warm_prefill(prompt);
    stopwatch const clock;
    for (auto const id : ids_) {
      auto const outcome = prefill_ ? prefill<float>(*serving_, id, prompt, chunk_)
                                    : serving_->fill_with_noise(id, about_.context);
      require_room(outcome, "filling the cache of " + row_.what.given);
      if (prefill_ && id == ids_.front()) row_.ttft_ms = clock.seconds() * 1e3;
    }
    if (!prefill_) return;
    auto const tokens = static_cast<double>(about_.context) * about_.batch;
    row_.prefill_tokens_per_s = tokens / clock.seconds();
  }

  /// The first chunk of the prompt, to no avail: memory is taken and pages are touched then.
  void warm_prefill(std::span<std::int32_t const> prompt) {
    auto& first = ids_.front();
    auto const some = prompt.first(static_cast<std::size_t>(chunk_));
    require_room(serving_->run({first, some, strata::logits::last}), "warming up");
    require(serving_->close(first), "closing a sequence");
    auto const again = serving_->open(row_.what.plan);
    require_room(again.state(), "opening a sequence");
    first = *again;
  }

  /// Median time of a decode step of the whole batch, those that warm up left out.
  double decode_ms(std::int32_t steps) {
    std::int32_t const token = 42;
    std::vector<feed> batch;
    for (auto const id : ids_) batch.push_back({id, std::span(&token, 1), strata::logits::last});
    std::vector<double> times;
    for (std::int32_t i = 0; i < steps + warm_up && !interrupted(); ++i) {
      stopwatch const clock;
      require_room(serving_->run(batch), "decoding");
      if (i >= warm_up) times.push_back(clock.seconds() * 1e3);
    }
    return times.empty() ? 0 : median(std::move(times));
  }

  serving_place& place_;
  bench_row& row_;
  bench_case const& about_;
  bool prefill_;
  std::int32_t chunk_ = 0;  // rows of a prefill step
  std::unique_ptr<server<float>> serving_;
  std::vector<strata::sequence_id> ids_;
};

/// All tables of a bench, on one model.
class serving_bench {
 public:
  explicit serving_bench(bench_options const& o)
      : o_(o),
        config_(o.model.config()),
        weights_(choose_weights(o.weights, o.device, o.model.file)),
        codec_(choose_codec(o.codec, o.device, o.paper ? cache_codec::bf16 : cache_codec::f16)),
        prefill_(o.prefill || o.paper) {
    strategies_.push_back(resolve_strategy("full", config_));
    for (auto const& given : strategy_names())
      if (given != "full") strategies_.push_back(resolve_strategy(given, config_));
    try {
      place_ = open_place();
    } catch (failure const& refusal) {
      if (refusal.code() != exit_code::does_not_fit) throw;
      no_place_ = refusal.what();  // what is known without running is shown all the same
    }
  }

  void run() {
    std::fputs(head_text().c_str(), stdout);
    for (auto const& about : cases()) {
      if (!run_table(about)) break;
      std::printf("\n%s", table_text(tables_.back(), prefill_).c_str());
      std::fflush(stdout);
    }
    if (tables_.empty()) return;
    std::printf("\n%s", columns_text(prefill_).c_str());
    if (o_.paper) figures_ = compare_with_paper(o_.model.name(), config_, tables_);
    if (!figures_.empty()) std::printf("\n%s", comparison_text(figures_).c_str());
    if (!o_.json_file.empty()) write_json(o_.json_file, json());
    require_one_ran();
  }

 private:
  std::vector<std::string> strategy_names() const {
    if (!o_.strategies.empty()) return o_.strategies;
    std::vector<std::string> names;
    for (auto const group : {2, 4, 8})
      if (group <= config_.layers) names.push_back("every:" + std::to_string(group));
    return names;
  }

  std::vector<bench_case> cases() const {
    if (o_.paper) return published_cases();
    std::vector<bench_case> all;
    for (auto const context : o_.contexts.empty() ? std::vector{4096} : o_.contexts)
      for (auto const batch : o_.batches.empty() ? std::vector{1} : o_.batches)
        all.push_back({context, batch, o_.steps});
    return all;
  }

  std::unique_ptr<serving_place> open_place() const {
    place_options const where{o_.device, o_.threads, weights_};
    if (o_.model.shape.empty()) return open_model(o_.model.file, where);
    return open_shape(config_, o_.model.name(), where);
  }

  std::string head_text() const {
    auto out =
        text("%s: %s of weights in %s; K and V in %s, %s\n", o_.model.name().c_str(),
             bytes_text(weight_bytes(config_, o_.device, weights_)).c_str(), weight_name(weights_),
             codec_name(codec_), prefill_ ? "filled by prompts" : "filled with noise");
    if (!place_) return out + no_place_ + "\n";
    out += place_->machine();
    if (place_->threads() > 0) out += text(", %d threads", place_->threads());
    return out + "; " + place_->kernels() + "\n";
  }

  /// False where somebody interrupted before there was a line.
  bool run_table(bench_case const& about) {
    bench_table table{about, {}};
    live_text news(stderr);
    for (auto const& s : strategies_) {
      if (place_)
        news.show(text("%s: %d x %s tokens, %d decode steps\n", s.given.c_str(), about.batch,
                       count_text(about.context).c_str(), about.steps));
      bench_row row;
      row.what = s;
      row.cost = cost_of(s.plan, config_, codec_, weight_size(weights_), about);
      run_row(row, about);
      if (interrupted()) break;
      table.rows.push_back(std::move(row));
    }
    news.clear();
    if (table.rows.empty()) return false;
    tables_.push_back(std::move(table));
    return true;
  }

  void run_row(bench_row& row, bench_case const& about) {
    row.missing = no_place_;
    if (!place_) return;
    try {
      if (o_.kv_budget > 0)
        require_fit(row.cost.kv_bytes, o_.kv_budget, "K/V at " + row.what.given, "--kv-budget");
      bench_run(*place_, row, about, codec_, prefill_).measure(about.steps);
    } catch (failure const& refusal) {
      if (refusal.code() != exit_code::does_not_fit) throw;
      row.missing = refusal.what();
    }
  }

  json_value json() const {
    json_value out = {{"machine", place_ ? place_->machine() : machine_text()},
                      {"device", o_.device == device_kind::cuda ? "cuda" : "cpu"},
                      {"kernels", place_ ? place_->kernels() : ""},
                      {"name", o_.model.name()},
                      {"model", to_json(config_)},
                      {"codec", codec_name(codec_)},
                      {"threads", place_ ? place_->threads() : 0},
                      {"weights_in", weight_name(weights_)},
                      {"weight_bytes", weight_bytes(config_, o_.device, weights_)},
                      {"tables", json_value::array()}};
    for (auto const& table : tables_) out["tables"].push_back(to_json(table, prefill_));
    if (!figures_.empty()) out["paper"] = to_json(figures_);
    return out;
  }

  /// Throws where nothing fitted.
  void require_one_ran() const {
    std::int64_t least = std::int64_t{1} << 62;
    for (auto const& table : tables_)
      for (auto const& row : table.rows) {
        if (row.ran()) return;
        least = std::min(least, row.cost.kv_bytes);
      }
    if (interrupted()) return;
    if (!place_) throw failure("nothing ran; " + no_place_, exit_code::does_not_fit);
    throw failure("no strategy fits; the smallest cache needs " + count_text(least) + " bytes",
                  exit_code::does_not_fit);
  }

  bench_options const& o_;
  model_config config_;
  weight_type weights_;
  cache_codec codec_;
  bool prefill_;
  std::vector<strategy> strategies_;  // full first
  std::unique_ptr<serving_place> place_;
  std::string no_place_;  // why there is none
  std::vector<bench_table> tables_;
  std::vector<comparison> figures_;
};

}  // namespace

void run_bench(bench_options o) {
  require_writable("--json", o.json_file);
  require_built_for(o.device);
  if (!o.train) return serving_bench(o).run();
  if (o.device != device_kind::cpu)
    throw failure("--train times the processor's training step; --device cuda cannot be given",
                  exit_code::wrong_use);
  if (o.contexts.size() > 1 || o.batches.size() > 1)
    throw failure("--train takes one --context and one --batch", exit_code::wrong_use);
  strata::thread_pool pool(o.threads);
  bench_training(o, pool);
}

}  // namespace lm
