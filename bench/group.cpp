// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Do followers find their leader's K/V still in a cache of the processor? A decode step through
// `layers` layers that read one cache beside the same through layers that each read their own, both
// of which memory alone holds when the step begins; 32 query heads on 8 KV heads of 128 (8 MiB of
// K/V at 2048 tokens) and 16 on 4 of 64 (2 MiB).
//
// Layers attend one after another, each a call of `step.attend` that all threads end before the next
// begins. Between them their weights (bfloat16) pass through the caches, where the name says so: by
// loads, or by loads behind prefetchnta, which asks that the last-level cache keep what it has.
//
// Seconds are those of attention alone. ratio_to_separate: those of separate caches / of the shared
// one, in turns. model_ratio is what bytes say: a call takes the longest of K/V / measured memory
// bandwidth and operations / measured peaks, and K/V that fit the last-level cache, together with
// the weights that loads bring between two layers, are read from memory once per group and then for
// nothing; model_ratio_cached: then at the measured rate at which as many bytes are read over and
// over. step_...: the same with the weights' own seconds. of_roofline: separate layers' model
// seconds / measured. ..._bytes_per_second: at which a layer whose K/V memory holds reads them, and
// a follower: where the kernel computes as long as it reads, the two are nearly the same, and a
// cache that holds K/V gains as little.
//
//     build/all/bench/group --threads=2 --benchmark_min_time=0.2 --benchmark_repetitions=3
//         --benchmark_report_aggregates_only=true
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <strata/attention/cpu/attention.hpp>
#include <strata/cache/contiguous_storage.hpp>
#include <strata/map/grouped_map.hpp>
#include <strata/stack.hpp>

#include "attention_call.hpp"
#include "attention_shape.hpp"
#include "codec_name.hpp"
#include "machine.hpp"

namespace {

using bench::attention_shape;
using bench::require;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// How weights come between two layers.
enum class passage { none, loads, prefetchnta };

/// Memory that passes through the caches, a part after the other: what is read next has been
/// forgotten.
class weight_stream {
 public:
  weight_stream() : memory_(bench::memory_to_stream()) {
    auto const bytes = memory_.get();
    for (std::size_t i = 0; i < bytes.size(); i += 64) bytes[i] = std::byte{1};
  }

  /// Reads `bytes` by all threads together.
  void pass(strata::thread_pool& pool, std::int64_t bytes, passage how) {
    if (how == passage::none) return;
    if (at_ + bytes > static_cast<std::int64_t>(memory_.get().size())) at_ = 0;
    auto const* const from = memory_.get().data() + at_;
    at_ += bytes;
    std::vector<float> ends(static_cast<std::size_t>(pool.num_shares()));
    require(pool.run([&](strata::share part) noexcept -> strata::status {
      auto& end = ends[static_cast<std::size_t>(part.ith)];
      end = how == passage::loads ? sum<false>(part, from, bytes) : sum<true>(part, from, bytes);
      return {};
    }));
    benchmark::DoNotOptimize(ends.data());
  }

 private:
  template <bool Asks>
  static float sum(strata::share part, std::byte const* from, std::int64_t bytes) noexcept {
    using v = strata::cpu::detail::lanes<float>;
    constexpr std::int64_t step = 512, ahead = 2048;
    constexpr std::int64_t size = v::count * sizeof(float);
    v::vec sums[8] = {};
    auto const steps = bytes / step;
    for (auto i = part.begin(steps) * step; i < part.end(steps) * step; i += step) {
      if constexpr (Asks)
        for (std::int64_t line = 0; line < step; line += 64)
          __builtin_prefetch(from + i + ahead + line, 0, 0);
      for (std::int64_t j = 0; j < step / size; ++j)
        sums[j % 8] += v::load(reinterpret_cast<float const*>(from + i + j * size));
    }
    for (int j = 1; j < 8; ++j) sums[0] += sums[j];
    return sums[0][0];
  }

  bench::aligned_memory memory_;
  std::int64_t at_ = 0;
};

/// Layers that share one cache, or have one each, for as many sequences as it takes to make the
/// processor's caches forget: steps take them in turn.
template <class Codec>
class layer_stack {
 public:
  layer_stack(attention_shape const& shape, std::int32_t layers, bool shared)
      : shape_(shape), layers_(layers), tensors_(shared ? 1 : layers) {
    auto const bytes = 2 * side_bytes();
    sequences_ = static_cast<std::int32_t>((bench::memory_beyond_caches() + bytes - 1) / bytes);
  }

  /// Bytes of K, or of V, of a sequence; and of all of them.
  std::int64_t side_bytes() const {
    return std::int64_t{tensors_} * shape_.context * shape_.kv_heads * Codec::row_bytes(shape_.dim);
  }
  std::int64_t memory() const { return 2 * side_bytes() * sequences_; }

  /// The sequences, all but their last token, in random K and V.
  void fill(std::span<std::byte> memory) {
    strata::layer_kind kind;
    kind.kv = {.kv_heads = shape_.kv_heads, .k_dim = shape_.dim, .v_dim = shape_.dim};
    auto const classes = strata::kv_classes::uniform(layers_, kind);
    auto const plan =
        *make_plan(strata::grouped_map(layers_, tensors_ == 1 ? layers_ : 1), classes);
    auto const half = memory.size() / 2;
    stack_ = std::make_unique<stack>(typename stack::storage_type(
        classes, strata::contiguous_options::for_plan(plan, sequences_, shape_.context),
        {memory.first(half), memory.subspan(half)}));
    for (std::int32_t i = 0; i < sequences_; ++i) {
      ids_.push_back(*stack_->open(plan));
      auto step = stack_->begin({ids_.back(), shape_.context - 1, strata::logits::none});
      mark(step);
      require(step.commit());
    }
  }

  /// The next sequence's step, abandoned: seconds of attention. After each layer, `between`.
  template <class Between>
  double run(strata::thread_pool& pool, strata::layer_queries<float> const& queries,
             std::vector<std::byte>& workspace, Between const& between) {
    auto step = stack_->begin({ids_[next_], 1, strata::logits::all});
    next_ = (next_ + 1) % ids_.size();
    mark(step);
    workspace.resize(static_cast<std::size_t>(
        *step.workspace_bytes(strata::layer_id{0}, queries, pool.num_shares())));
    double seconds = 0;
    for (strata::layer_id l{0}; l.index < layers_; ++l.index) {
      auto const start = std::chrono::steady_clock::now();
      require(step.attend(pool, l, queries, workspace));
      seconds += seconds_since(start);
      between();
    }
    return seconds;
  }

 private:
  using stack = strata::stack<strata::contiguous_storage<Codec>, strata::cpu::attention>;

  template <class Step>
  void mark(Step& step) {
    require(step.state());
    for (strata::layer_id l{0}; l.index < layers_; ++l.index) {
      for (auto const& run : step.k_writers(l)) run.mark_stored();
      for (auto const& run : step.v_writers(l)) run.mark_stored();
    }
  }

  attention_shape shape_;
  std::int32_t layers_, tensors_, sequences_ = 0;
  std::unique_ptr<stack> stack_;
  std::vector<strata::sequence_id> ids_;
  std::size_t next_ = 0;
};

/// The rate at which all threads read `bytes` over and over, each its own part.
double warm_rate(strata::thread_pool& pool, std::int64_t bytes) {
  bench::read_probe const probe(bytes);
  auto const rounds = std::max<std::int64_t>(1, (std::int64_t{256} << 20) / bytes);
  return probe.rate(pool, rounds);
}

/// What bytes and operations say of a case, in seconds.
template <class Codec>
struct model {
  double apart = 0;     ///< a layer whose K/V memory alone holds
  double follower = 0;  ///< one behind another, its K/V free
  double cached = 0;    ///< or read at the cache's rate
  double weights = 0;   ///< of a layer

  model(bench::team& team, attention_shape const& shape, double weight_bytes, passage how) {
    auto work = shape.forward_work<Codec>();
    auto const bytes = work.bytes;
    auto const between = how == passage::loads ? weight_bytes : 0;
    bool const fits = bytes + between <= static_cast<double>(bench::last_level_cache());
    auto const& limits = team.limits;
    apart = limits.seconds(work);
    work.bytes = fits ? 0 : bytes;
    follower = cached = limits.seconds(work);
    if (fits)
      cached = std::max(cached, bytes / warm_rate(team.pool, static_cast<std::int64_t>(bytes)));
    if (how != passage::none) weights = weight_bytes / limits.read_bytes;
  }
};

struct group_case {
  attention_shape shape;
  std::int32_t layers = 1;
  passage how = passage::none;
  std::int64_t weight_bytes = 0;  // of a layer, 16 bits each

  std::string name(char const* codec) const {
    constexpr char const* passages[] = {"none", "loads", "prefetchnta"};
    return "group/layers:" + std::to_string(layers) +
           "/kv_heads:" + std::to_string(shape.kv_heads) + "/dim:" + std::to_string(shape.dim) +
           "/context:" + std::to_string(shape.context) + "/codec:" + codec +
           "/weights:" + passages[static_cast<std::size_t>(how)];
  }
};

/// alone, passing: seconds of attention and of weights, with a shared cache and with separate ones.
template <class Codec>
void count(benchmark::State& state, group_case const& c, model<Codec> const& m,
           double const (&alone)[2], double const (&passing)[2]) {
  auto const followers = c.layers - 1;
  auto const all = m.apart * c.layers, all_weights = m.weights * c.layers;
  state.counters["ratio_to_separate"] = alone[1] / alone[0];
  state.counters["model_ratio"] = all / (m.apart + followers * m.follower);
  state.counters["model_ratio_cached"] = all / (m.apart + followers * m.cached);
  auto const calls = static_cast<double>(state.iterations());
  auto const layer_seconds = alone[1] / calls / c.layers;
  auto const bytes = c.shape.template forward_work<Codec>().bytes;
  state.counters["separate_bytes_per_second"] = bytes / layer_seconds;
  if (followers > 0)
    state.counters["follower_bytes_per_second"] =
        bytes * followers / (alone[0] / calls - layer_seconds);
  state.counters["of_roofline"] = all * calls / alone[1];
  if (c.how == passage::none) return;
  state.counters["step_ratio_to_separate"] = (alone[1] + passing[1]) / (alone[0] + passing[0]);
  state.counters["step_model_ratio"] =
      (all + all_weights) / (m.apart + followers * m.follower + all_weights);
}

template <class Codec>
void measure(benchmark::State& state, bench::team& team, group_case const& c) {
  layer_stack<Codec> shared(c.shape, c.layers, true), separate(c.shape, c.layers, false);
  auto const rows = (shared.memory() + separate.memory()) / Codec::row_bytes(c.shape.dim);
  auto const memory = bench::random_rows<Codec>::get(c.shape.dim, rows).memory();
  auto const split = static_cast<std::size_t>(shared.memory());
  shared.fill(memory.first(split));
  separate.fill(memory.subspan(split, static_cast<std::size_t>(separate.memory())));
  static weight_stream weights;
  auto const q = bench::random_queries(c.shape);
  std::vector<float> out(q.size());
  std::vector<std::byte> workspace;
  strata::layer_queries<float> const queries{
      .q = q.data(), .out = out.data(), .q_heads = c.shape.q_heads};
  static bench::read_probe const probe;
  team.limits.renew(team.pool, probe);
  model<Codec> const m(team, c.shape, static_cast<double>(c.weight_bytes), c.how);

  double alone[2] = {}, passing[2] = {};
  auto const run = [&](auto& layers, int which) {
    auto const seconds = layers.run(team.pool, queries, workspace, [&] {
      auto const start = std::chrono::steady_clock::now();
      weights.pass(team.pool, c.weight_bytes, c.how);
      passing[which] += seconds_since(start);
    });
    alone[which] += seconds;
    return seconds;
  };
  run(shared, 0), run(separate, 1);
  alone[0] = alone[1] = passing[0] = passing[1] = 0;
  for (auto _ : state) {
    state.SetIterationTime(run(shared, 0));
    run(separate, 1);
  }
  count(state, c, m, alone, passing);
}

template <class Codec>
void add(bench::session& session, group_case const& c) {
  benchmark::RegisterBenchmark(c.name(bench::codec_name<Codec>).c_str(),
                               [=, &session](benchmark::State& state) {
                                 auto& team = session.team_of(session.pool().num_shares());
                                 measure<Codec>(state, team, c);
                               })
      ->UseManualTime()
      ->Unit(benchmark::kMillisecond);
}

/// A model's attention, and the bytes of a layer's weights.
void add_model(bench::session& session, attention_shape shape, std::int64_t weight_bytes,
               std::vector<std::int32_t> const& contexts) {
  for (std::int32_t const layers : {1, 2, 4, 8})
    for (auto const context : contexts) {
      shape.context = context;
      add<strata::bf16_codec>(session, {shape, layers});
      add<strata::f16_codec>(session, {shape, layers});
    }
  for (auto const how : {passage::loads, passage::prefetchnta})
    for (auto const context : contexts) {
      shape.context = context;
      add<strata::bf16_codec>(session, {shape, 4, how, weight_bytes});
    }
}

}  // namespace

int main(int argc, char** argv) {
  bench::session session(argc, argv);
  // Llama-3.1-8B: 4096 wide, MLP of 14336. The small one: 1024 wide, MLP of 2816.
  add_model(session, {}, std::int64_t{218'103'808} * 2, {2048, 4096, 8192, 16384});
  add_model(session, {.q_heads = 16, .kv_heads = 4, .dim = 64}, std::int64_t{11'272'192} * 2,
            {1024, 2048, 4096, 8192, 16384});
  return session.run();
}
