// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// For engines that ban exceptions and RTTI: everything is reachable without them. Values are all 1,
// so attention gives 1 and its gradients have known sums, whatever the keys are.
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <utility>
#include <vector>

#include <strata/attention/cpu/blocked.hpp>
#include <strata/cache/snapshot_file.hpp>
#include <strata/strata.hpp>
#include <strata/thread_pool.hpp>

#if STRATA_HAS_EXCEPTIONS
#error "this file is about -fno-exceptions"
#endif

namespace {

using codec = strata::f32_codec;
using kernel = strata::cpu::blocked_attention;

constexpr std::int32_t layers = 4, q_heads = 4, kv_heads = 2, dim = 8, tokens = 5;

/// Memory for a workspace, which starts on a 64-byte boundary.
struct alignas(64) cache_line {
  std::byte bytes[64];
};

strata::kv_classes classes() {
  strata::layer_kind kind;
  kind.kv.kv_heads = kv_heads;
  kind.kv.k_dim = kind.kv.v_dim = dim;
  return *strata::kv_classes::make(std::vector(std::size_t{layers}, kind));
}

std::span<std::byte> workspace_of(std::vector<cache_line>& memory, std::int64_t bytes) {
  memory.resize(static_cast<std::size_t>(bytes) / 64 + 1);
  return std::as_writable_bytes(std::span(memory));
}

bool near(double x, double y) { return std::abs(x - y) < 1e-4; }

bool all_one(std::vector<float> const& values) {
  for (auto const x : values)
    if (!near(static_cast<double>(x), 1)) return false;
  return true;
}

bool plans() {
  auto const table = strata::table_map::make(std::array{0, 0, 2, 2});
  if (!table.ok()) return false;
  auto const served = strata::make_plan(*table);
  auto const trained = strata::make_plan(strata::fixed_route(*table),
                                         strata::kv_classes::uniform(layers), strata::draw_key{});
  if (!served.ok() || !trained.ok() || !(*served == *trained)) return false;
  auto const refused = strata::make_plan(strata::leader_set(layers, {1}));
  return refused.state().layer == strata::layer_id{0};
}

/// One step of a sequence.
template <class Storage, class Exec>
bool serves(strata::result<Storage> storage, Exec& exec) {
  if (!storage.ok()) return false;
  strata::stack<Storage, kernel> stack(std::move(*storage));
  auto const plan = strata::make_plan(strata::grouped_map(layers, 2), classes());
  auto const id = stack.open(*plan);
  if (!id.ok()) return false;
  std::vector<float> const rows(tokens * kv_heads * dim, 1), q(tokens * q_heads * dim, 1);
  std::vector<cache_line> memory;
  auto step = stack.begin({*id, tokens, strata::logits::all});
  for (strata::layer_id l{0}; l.index < layers; ++l.index) {
    for (auto const& run : step.k_writers(l)) run.store_all(rows.data());
    for (auto const& run : step.v_writers(l)) run.store(0, rows.data()), run.store_all(rows.data());
    std::vector<float> out(q.size());
    strata::layer_queries<float> const queries{q.data(), out.data(), nullptr, q_heads};
    auto const bytes = step.workspace_bytes(l, queries, exec.num_shares());
    if (!bytes.ok() || !step.attend(exec, l, queries, workspace_of(memory, *bytes)).ok())
      return false;
    if (!all_one(out)) return false;
  }
  return step.commit().ok() && stack.storage().length(*id) == tokens && stack.close(*id).ok();
}

/// A step over memory that an engine owns, a block per layer.
template <class Exec>
bool serves_borrowed(Exec& exec) {
  std::vector<float> k(layers * tokens * kv_heads * dim), v(k.size());
  std::vector<strata::borrowed_layer> memory;
  for (std::int32_t l = 0; l < layers; ++l) {
    auto const blocks = [](std::vector<float>& all) {
      return strata::nhd_blocks<codec>(reinterpret_cast<std::byte*>(all.data()), tokens, kv_heads,
                                       dim);
    };
    memory.push_back({blocks(k), blocks(v), l, l});
  }
  return serves(strata::borrowed_storage<codec>::make(classes(), memory, 1, tokens), exec);
}

/// Forward of all layers, and backward.
template <class Exec>
bool trains(Exec& exec) {
  strata::router<strata::random_previous<>, kernel> const router(strata::random_previous(0.3),
                                                                 classes());
  auto const plan = router.draw({.seed = 3});
  if (!plan.ok()) return false;
  strata::pass_shape const shape{1, tokens};
  std::vector<float> const kv(tokens * kv_heads * dim, 1), q(tokens * q_heads * dim, 1);
  std::vector<float> d_q(q.size()), out(q.size()), lse(tokens * q_heads);
  std::vector<std::vector<float>> dk(layers, kv), dv(layers, kv);
  std::vector<strata::layer_tensors<float>> tensors;
  for (std::size_t l = 0; l < layers; ++l)
    tensors.push_back({kv.data(), kv.data(), dk[l].data(), dv[l].data()});
  std::vector<cache_line> memory;
  strata::layer_queries<float> const queries{q.data(), out.data(), lse.data(), q_heads};
  for (strata::layer_id l{layers - 1}; l.valid(); --l.index) {
    auto const bytes = router.workspace_bytes(l, queries, shape, exec.num_shares());
    auto const workspace = workspace_of(memory, *bytes);
    if (!router.forward(exec, *plan, l, queries, tensors, shape, workspace).ok()) return false;
    if (!all_one(out)) return false;
    if (!router.backward(exec, *plan, l, queries, tensors, shape, q.data(), d_q.data(), workspace)
             .ok())
      return false;
  }
  double sum = 0;  // of dV: each row of each query head of each layer hands out all of its d_out
  for (std::int32_t l = 0; l < layers; ++l)
    for (auto const x : dv[static_cast<std::size_t>(l)])
      if (plan->layers[l].v.stored) sum += static_cast<double>(x);
  return near(sum, layers * tokens * q_heads * dim);
}

/// To a file and to the host's memory, and back.
bool travels() {
  using storage_type = strata::paged_storage<codec>;
  auto storage = storage_type::make(classes(), {1, tokens, 2, 12, 12});
  if (!storage.ok()) return false;
  auto tier = strata::host_tier<>::make(*storage, {1 << 16, 1, 1 << 10});
  auto const plan = strata::make_plan(strata::grouped_map(layers, 2), classes());
  auto const id = storage->open(*plan);
  if (!tier.ok() || !id.ok()) return false;
  strata::sequence_id ids[] = {*id};
  auto const away = tier->offload(*storage, ids[0]);
  if (!away.ok()) return false;
  auto const back = tier->reload(*storage, *away);
  if (!back.ok()) return false;
  ids[0] = *back;
  auto const path = "noexceptions.kv";
  if (!strata::write_snapshot_file(path, *storage, ids, {}).ok()) return false;
  auto const file = strata::snapshot_file::map(path);
  auto const copy = strata::snapshot_file::read(path);
  std::remove(path);
  return file.ok() && copy.ok() && storage->close(ids[0]).ok() &&
         strata::restore(*storage, file->bytes(), {}, ids).ok();
}

template <class Exec>
bool works(Exec&& exec) {
  return serves(strata::contiguous_storage<codec>::make(classes(), {1, tokens, layers, layers}),
                exec) &&
         serves(strata::paged_storage<codec>::make(classes(), {1, tokens, 2, 12, 12}), exec) &&
         serves_borrowed(exec) && trains(exec);
}

}  // namespace

int main() {
  if (!plans()) return 1;
  if (!travels()) return 4;
  if (!works(strata::serial_executor{})) return 2;
  return works(strata::thread_pool(2)) ? 0 : 3;
}
