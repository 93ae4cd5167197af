// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// An engine whose workers call every operation as (ith, nth), with a barrier of its own, as ggml's
// do: a step over a real cache without any executor. Each thread stores its part of the new rows,
// asks the step for the view and the queries of a layer, and runs its share of the kernel. The same
// steps by `attend` in one thread give the same bits.
#include <strata/attention/cpu/attention.hpp>

#include <array>
#include <barrier>
#include <thread>

#include "compare.hpp"

namespace {

constexpr std::int32_t layers = 4;
constexpr std::int32_t row_width = engines::kv_heads * engines::head_dim;
constexpr std::int32_t query_width = engines::q_heads * engines::head_dim;

/// Layers 1 and 3 see four tokens. Half of the layers keep K/V, each for itself and the next but
/// one: a step stores rows at two layers and reads them at all.
strata::kv_classes classes() {
  strata::layer_kind wide;
  wide.kv = {.kv_heads = engines::kv_heads, .k_dim = engines::head_dim, .v_dim = engines::head_dim};
  auto narrow = wide;
  narrow.window = 4;
  return *strata::kv_classes::make(std::vector{wide, narrow, wide, narrow});
}

using stack_type = strata::stack<strata::paged_storage<strata::bf16_codec>, strata::cpu::attention>;

/// A model's cache, and what its operations work on: each reads and writes [rows, ...].
struct engine {
  stack_type stack{strata::paged_storage<strata::bf16_codec>(
      classes(), {.max_sequences = 2, .max_tokens = 64, .k_blocks = 16, .v_blocks = 16})};
  std::vector<float> q, k, v;
  std::vector<float> out;  // of all layers and steps, in their order

  /// The projections of a real engine.
  void project(std::int32_t rows, unsigned seed) {
    q = engines::random_tensor(static_cast<std::size_t>(rows * query_width), seed);
    k = engines::random_tensor(static_cast<std::size_t>(rows * row_width), seed + 1);
    v = engines::random_tensor(static_cast<std::size_t>(rows * row_width), seed + 2);
  }
  strata::layer_queries<float> queries() {
    out.resize(out.size() + q.size());
    auto* const to = out.data() + out.size() - q.size();
    return {.q = q.data(), .out = to, .q_heads = engines::q_heads};
  }
};

/// A part of the new rows of a layer.
template <class Step>
void store(strata::share part, Step& step, strata::layer_id layer, engine const& e) {
  auto const share_of = [&](auto const& run, std::vector<float> const& rows) {
    for (auto i = part.begin(run.num_rows()); i < part.end(run.num_rows()); ++i)
      run.store(static_cast<std::int32_t>(i), rows.data() + (run.first_row() + i) * row_width);
  };
  for (auto const& run : step.k_writers(layer)) share_of(run, e.k);
  for (auto const& run : step.v_writers(layer)) share_of(run, e.v);
}

/// What every worker runs. All of them get the same refusal, so that all meet at the barriers.
template <class Step, class Barrier>
strata::status operation(strata::share part, Step& step, strata::layer_id layer, engine const& e,
                         strata::layer_queries<float> const& queries,
                         std::span<std::byte> workspace, Barrier& barrier) {
  store(part, step, layer, e);
  barrier.arrive_and_wait();
  auto const keys = step.view(layer);
  auto const rows = step.queries(layer, queries);
  auto s = !keys.ok() ? keys.state() : rows.state();
  auto const& kernel = e.stack.kernel();
  if (s.ok()) s = kernel.partial(part, *rows, *keys, workspace);
  barrier.arrive_and_wait();
  if (s.ok()) s = kernel.combine(part, *rows, *keys, workspace);
  barrier.arrive_and_wait();
  return s;
}

template <class Step>
strata::status by_workers(Step& step, strata::layer_id layer, engine& e) {
  constexpr std::int32_t nth = 3;
  auto const queries = e.queries();
  auto const bytes = step.workspace_bytes(layer, queries, nth);
  if (!bytes.ok()) return bytes.state();
  std::vector<std::byte> workspace(static_cast<std::size_t>(*bytes));
  std::barrier barrier(nth);
  strata::status outcomes[nth];
  auto const work = [&](std::int32_t ith) {
    outcomes[ith] = operation({ith, nth}, step, layer, e, queries, workspace, barrier);
  };
  std::vector<std::thread> workers;
  for (std::int32_t ith = 1; ith < nth; ++ith) workers.emplace_back(work, ith);
  work(0);
  for (auto& worker : workers) worker.join();
  for (auto const& outcome : outcomes)
    if (!outcome.ok()) return outcome;
  return {};
}

template <class Step>
strata::status by_attend(Step& step, strata::layer_id layer, engine& e) {
  strata::serial_executor here;
  store({0, 1}, step, layer, e);
  auto const queries = e.queries();
  auto const bytes = step.workspace_bytes(layer, queries, here.num_shares());
  if (!bytes.ok()) return bytes.state();
  std::vector<std::byte> workspace(static_cast<std::size_t>(*bytes));
  return step.attend(here, layer, queries, workspace);
}

/// Two prompts, and three tokens more of each.
template <class Layer>
strata::status serve(engine& e, Layer const& run_layer) {
  auto const all = make_plan(strata::identity_map(layers), classes());
  auto const half = make_plan(*strata::table_map::make(std::array{0, 1, 0, 1}), classes());
  if (!all.ok() || !half.ok()) return all.ok() ? half.state() : all.state();
  auto const first = e.stack.open(*all), second = e.stack.open(*half);
  if (!first.ok() || !second.ok()) return first.ok() ? second.state() : first.state();
  for (unsigned round = 0; round < 4; ++round) {
    auto step = round == 0 ? e.stack.begin({{*first, 20}, {*second, 9}})
                           : e.stack.begin({{*first, 1}, {*second, 1}});
    if (!step.state().ok()) return step.state();
    for (strata::layer_id l{0}; layers > l.index; ++l.index) {
      e.project(step.num_rows(), 100 * round + static_cast<unsigned>(l.index));
      if (auto const s = run_layer(step, l, e); !s.ok()) return s;
    }
    if (auto const s = step.commit(); !s.ok()) return s;
  }
  return {};
}

}  // namespace

int main() {
  engine threads, alone;
  auto const worked =
      serve(threads, [](auto& step, auto l, engine& e) { return by_workers(step, l, e); });
  auto const expected =
      serve(alone, [](auto& step, auto l, engine& e) { return by_attend(step, l, e); });
  if (!worked.ok() || !expected.ok()) {
    std::printf("refused: %s\n", strata::describe(worked.ok() ? expected : worked).c_str());
    return 1;
  }
  return engines::equal("(ith, nth) threads of an engine over a step", threads.out, alone.out) ? 0
                                                                                               : 1;
}
