// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// How near is attention to what the machine can do, and how does it compare with others? Kernels,
// and ggml's where it was found at configuration, on the same K/V in the same run:
//
//     decode    one row of one sequence, 4, 8 and 1 query heads per KV head; strata_bf16q has queries
//               of bfloat16; fp8, int4 and pairs (rot_int4_int4: K rotated) beside bf16 and q8_0
//     batch     one row of each of 8 sequences
//     draft     a few rows of one sequence
//     paged     shuffled blocks, and [head, token, dim], beside one piece
//     head_dim  heads of other sizes
//     prefill   all rows of a sequence, causal
//     backward  the same, its gradients
//     threads   one thread beside all
//
// seconds: per call. machine_reads: bytes per second that the machine read right before, which
// wanders with its neighbours. fraction_of_roofline: the seconds that the machine would need at best
// / those (attention_shape.hpp says what is counted, limits.hpp what the machine can do).
// ratio_to_<other>: the median of the other's seconds / one's own; above 1 the other is slower.
//
//     build/all/bench/attention --benchmark_filter=^attention/decode --benchmark_repetitions=5
//         --benchmark_enable_random_interleaving=true --benchmark_report_aggregates_only=true
//
// bench/peers/torch_attention.py puts PyTorch beside it, bench/plot_attention.py draws the figures.
#include <cstdint>
#include <cstdio>
#include <set>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <strata/attention/cpu/attention.hpp>
#include <strata/attention/cpu/blocked.hpp>
#include <strata/cache/element.hpp>

#include "attention_call.hpp"
#include "attention_shape.hpp"
#include "codec_name.hpp"
#include "machine.hpp"
#include "ratios.hpp"
#if defined(STRATA_BENCH_GGML)
#include "peers/ggml_attention.hpp"
#endif

namespace {

using bench::attention_shape;

template <class... Types>
struct list {};

using blocked = strata::cpu::blocked_attention;
using kernels = list<strata::cpu::attention, blocked>;

template <class Kernel>
inline constexpr char const* kernel_name = "strata";
template <>
inline constexpr char const* kernel_name<blocked> = "blocked";

using strata::bfloat16, strata::bf16_codec, strata::f16_codec, strata::f32_codec;
using int8_codecs = list<strata::int8_codec, strata::q8_0_codec>;
using serving_codecs = list<f16_codec, bf16_codec, strata::q8_0_codec>;
using plain_codecs = list<f16_codec, bf16_codec, f32_codec>;
using small_codecs =
    list<strata::fp8_codec, strata::int4_codec, bench::rotated_int4, bench::int8_int4>;

/// A case of the same set, kernel and codec that a case is compared with.
struct beside {
  char const* counter;
  attention_shape shape;
};

/// Registers cases and what stands beside them.
class cases {
 public:
  explicit cases(bench::session& session) : session_(session) {}

  bench::ratio_table const& ratios() const { return ratios_; }

  /// Forward, by all kernels and those peers that know the codecs.
  template <class... Codecs>
  void forward(list<Codecs...>, std::string const& set, attention_shape const& shape,
               std::vector<beside> const& others = {}) {
    (each_kernel<Codecs>(kernels{}, set, shape, others), ...);
    if (shape.block == 0 && !shape.heads_first) (ggml<Codecs>(set, shape), ...);
  }

  /// Forward by cpu::attention alone, beside the codecs that each is an alternative to.
  template <class... Codecs>
  void small(list<Codecs...> codecs, std::string const& set, attention_shape const& shape,
             std::vector<beside> const& others = {}) {
    (forward_case<strata::cpu::attention, Codecs>(set, shape, others), ...);
    against<bf16_codec>(codecs, set, shape);
    against<strata::q8_0_codec>(codecs, set, shape);
  }

  /// Forward with queries of bfloat16 on K and V of bfloat16, beside queries of float.
  void bf16_queries(std::string const& set, attention_shape const& shape) {
    using kernel = strata::cpu::attention;
    auto const codec = bench::codec_name<bf16_codec>;
    auto const name = shape.name(set, std::string(kernel_name<kernel>) + "_bf16q", codec);
    add_peers<kernel>(name, set, shape, codec);
    ratios_.add(name, "ratio_to_float_queries", shape.name(set, kernel_name<kernel>, codec));
    auto& team = team_of(shape);
    add(name, team, shape.forward_work<bf16_codec, bfloat16>(),
        [=, &team] { return bench::forward_call<kernel, bf16_codec, bfloat16>(team.pool, shape); });
  }

  template <class... Kernels>
  void backward(list<Kernels...>, std::string const& set, attention_shape const& shape) {
    (backward_case<Kernels>(set, shape), ...);
  }

  /// Seconds of another codec beside those of Codec.
  template <class Other, class... Codecs>
  void against(list<Codecs...>, std::string const& set, attention_shape const& shape) {
    (against_one<Other, Codecs>(kernels{}, set, shape), ...);
  }

 private:
  template <class Codec, class... Kernels>
  void each_kernel(list<Kernels...>, std::string const& set, attention_shape const& shape,
                   std::vector<beside> const& others) {
    (forward_case<Kernels, Codec>(set, shape, others), ...);
  }

  template <class Kernel, class Codec>
  void forward_case(std::string const& set, attention_shape const& shape,
                    std::vector<beside> const& others) {
    auto const name = shape.name(set, kernel_name<Kernel>, bench::codec_name<Codec>);
    for (auto const& other : others)
      ratios_.add(name, other.counter,
                  other.shape.name(set, kernel_name<Kernel>, bench::codec_name<Codec>));
    add_peers<Kernel>(name, set, shape, bench::codec_name<Codec>);
    auto& team = team_of(shape);
    add(name, team, shape.forward_work<Codec>(),
        [=, &team] { return bench::forward_call<Kernel, Codec>(team.pool, shape); });
  }

  /// Of kernels that have gradients.
  template <class Kernel>
  void backward_case(std::string const&, attention_shape const&) {}
  template <class Kernel>
    requires strata::differentiable_kernel<Kernel, float, strata::kv_view<f32_codec>>
  void backward_case(std::string const& set, attention_shape const& shape) {
    auto const codec = bench::codec_name<f32_codec>;
    auto const name = shape.name(set, kernel_name<Kernel>, codec);
    add_peers<Kernel>(name, set, shape, codec);
    auto& team = team_of(shape);
    add(name, team, shape.backward_work(),
        [=, &team] { return bench::backward_call<Kernel>(team.pool, shape); });
  }

  template <class Other, class Codec, class... Kernels>
  void against_one(list<Kernels...>, std::string const& set, attention_shape const& shape) {
    auto const name = [&](char const* kernel, char const* codec) {
      return shape.name(set, kernel, codec);
    };
    (ratios_.add(name(kernel_name<Kernels>, bench::codec_name<Codec>),
                 std::string("ratio_to_") + bench::codec_name<Other>,
                 name(kernel_name<Kernels>, bench::codec_name<Other>)),
     ...);
  }

  template <class Kernel>
  void add_peers(std::string const& name, std::string const& set, attention_shape const& shape,
                 char const* codec) {
    if (!std::is_same_v<Kernel, blocked>)
      ratios_.add(name, "ratio_to_blocked", shape.name(set, kernel_name<blocked>, codec));
    ratios_.add(name, "ratio_to_ggml", shape.name(set, "ggml", codec));
  }

  bench::team& team_of(attention_shape const& shape) {
    return session_.team_of(shape.threads > 0 ? shape.threads : session_.pool().num_shares());
  }

  /// Right before each repetition: on a machine that others use, too, memory is read half as fast
  /// at times.
  static bench::machine_limits const& limits_now(bench::team& team) {
    static bench::read_probe const probe;
    team.limits.renew(team.pool, probe);
    return team.limits;
  }

  static constexpr auto no_check = [](auto&) {};

  template <class Make, class Check = decltype(no_check)>
  static void add(std::string const& name, bench::team& team, bench::machine_work const& work,
                  Make const& make, Check const& check = no_check) {
    benchmark::RegisterBenchmark(name.c_str(),
                                 [=, &team](benchmark::State& state) {
                                   auto call = make();
                                   check(call);
                                   auto const& limits = limits_now(team);
                                   for (auto _ : state) call.run();
                                   bench::session::count_roofline(state, limits, work);
                                 })
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
  }

#if defined(STRATA_BENCH_GGML)
  template <class Codec>
  void ggml(std::string const& set, attention_shape const& shape) {
    constexpr auto type = bench::ggml_type_of<Codec>;
    if constexpr (type != GGML_TYPE_COUNT) {
      if (shape.dim % ggml_blck_size(type) != 0) return;
      auto const name = shape.name(set, "ggml", bench::codec_name<Codec>);
      auto& team = team_of(shape);
      add(
          name, team, shape.forward_work<Codec>(),
          [=, &team] { return bench::ggml_attention<Codec>(team.pool.num_shares(), shape); },
          [=, &team](auto& call) { check_once(name, call, team.pool); });
    }
  }

  /// A benchmark of a wrong answer is none. Loose: ggml adds up V in float16, and rounds queries as
  /// K is rounded.
  template <class Call>
  static void check_once(std::string const& name, Call& call, strata::thread_pool& pool) {
    static std::set<std::string> checked;
    if (!checked.insert(name).second) return;
    if (auto const apart = call.template distance<blocked>(pool); !(apart < 0.05)) {
      std::fprintf(stderr, "%s: a row differs by %g of its length\n", name.c_str(), apart);
      std::exit(1);
    }
  }
#else
  template <class Codec>
  void ggml(std::string const&, attention_shape const&) {}
#endif

  bench::session& session_;
  bench::ratio_table ratios_;
};

void add_decode(cases& all) {
  auto const against_halves = [&](attention_shape const& shape) {
    all.against<f16_codec>(int8_codecs{}, "decode", shape);
    all.against<bf16_codec>(int8_codecs{}, "decode", shape);
  };
  for (std::int32_t const kv_heads : {8, 4})
    for (std::int32_t const context : {4096, 16384, 65536}) {
      attention_shape const shape{.kv_heads = kv_heads, .context = context};
      all.forward(plain_codecs{}, "decode", shape);
      all.bf16_queries("decode", shape);
      all.forward(int8_codecs{}, "decode", shape);
      all.small(small_codecs{}, "decode", shape);
      against_halves(shape);
    }
  all.forward(serving_codecs{}, "batch", {.context = 4096, .batch = 8});
  // As many query heads as KV heads, as Llama-2-7B has: the case that is bound by memory.
  for (std::int32_t const context : {4096, 16384}) {
    attention_shape const shape{.kv_heads = 32, .context = context};
    all.forward(serving_codecs{}, "decode", shape);
    all.small(small_codecs{}, "decode", shape);
    against_halves(shape);
  }
  attention_shape const one_row;
  all.forward(serving_codecs{}, "draft", one_row);
  all.bf16_queries("draft", one_row);
  for (std::int32_t const rows : {2, 4, 8, 16}) {
    all.forward(serving_codecs{}, "draft", {.rows = rows}, {{"ratio_to_one_row", one_row}});
    all.bf16_queries("draft", {.rows = rows});
  }
}

void add_layouts(cases& all) {
  using codecs = list<f16_codec, bf16_codec>;
  attention_shape const contiguous;
  std::vector<beside> const others{{"ratio_to_contiguous", contiguous}};
  all.forward(codecs{}, "paged", contiguous);
  for (std::int32_t const block : {16, 64})
    all.forward(codecs{}, "paged", {.block = block}, others);
  all.forward(codecs{}, "paged", {.heads_first = true}, others);
  for (std::int32_t const dim : {64, 80, 96, 128, 256})
    all.forward(codecs{}, "head_dim", {.dim = dim, .context = 8192});
}

void add_whole_sequences(cases& all) {
  for (std::int32_t const length : {512, 2048, 8192})
    all.forward(list<f32_codec, bf16_codec>{}, "prefill", {.context = length, .rows = length});
  for (std::int32_t const length : {512, 2048})
    all.backward(kernels{}, "backward", {.context = length, .rows = length});
  all.small(small_codecs{}, "prefill", {.context = 2048, .rows = 2048});
}

/// Calls by one thread and by all: as many times faster at best as there are threads.
void add_threads(cases& all, std::int32_t threads) {
  if (threads < 2) return;
  auto const pair = [&](auto codecs, attention_shape shape) {
    shape.threads = 1;
    std::vector<beside> const others{{"ratio_to_one_thread", shape}};
    all.forward(codecs, "threads", shape);
    shape.threads = threads;
    all.forward(codecs, "threads", shape, others);
  };
  pair(serving_codecs{}, {});
  attention_shape one{.threads = 1}, every{.threads = threads};
  all.small(small_codecs{}, "threads", one);
  all.small(small_codecs{}, "threads", every, {{"ratio_to_one_thread", one}});
  pair(list<f32_codec, bf16_codec>{}, {.context = 2048, .rows = 2048});
}

}  // namespace

int main(int argc, char** argv) {
  bench::session session(argc, argv);
#if defined(STRATA_BENCH_GGML)
  benchmark::AddCustomContext("ggml", std::string(ggml_version()) + " " + ggml_commit());
#endif
  cases all(session);
  add_decode(all);
  add_layouts(all);
  add_whole_sequences(all);
  add_threads(all, session.pool().num_shares());
  bench::ratio_reporter<benchmark::ConsoleReporter> display(all.ratios(),
                                                            benchmark::ConsoleReporter::OO_Tabular);
  bench::ratio_reporter<benchmark::JSONReporter> file(all.ratios());
  return session.run(&display, &file);
}
