// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Host headers in a CUDA file: no errors, no warnings, and their host-device functions in a kernel.
// What people compose is instantiated: nvcc reads C++ its own way.
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/cache/int8_codec.hpp>
#include <strata/cache/rope.hpp>
#include <strata/picture.hpp>
#include <strata/strata.hpp>
#include <strata/thread_pool.hpp>

template <class T>
__global__ void merge_rows(T* out, float* lse, T const* other, float const* other_lse, int dim) {
  auto const row = static_cast<int>(blockIdx.x);
  strata::merge(out + row * dim, lse[row], other + row * dim, other_lse[row], dim);
}

template __global__ void merge_rows(float*, float*, float const*, float const*, int);

namespace {

using strata::layer_id;

template <class Storage>
strata::status serve(strata::result<Storage> made, strata::route_plan const& plan) {
  if (!made.ok()) return made.state();
  strata::stack server(std::move(*made), strata::reference_attention{});
  auto const id = server.open(plan);
  if (!id.ok()) return id.state();
  float x[64] = {};
  std::vector<std::byte> workspace(1 << 16);
  strata::serial_executor here;
  auto step = server.begin({*id});
  for (layer_id l{0}; plan.num_layers > l.index; ++l.index) {
    for (auto const& rows : step.k_writers(l)) rows.store_all(x);
    for (auto const& rows : step.v_writers(l)) rows.store_all(x);
    strata::layer_queries<float> const queries{.q = x, .out = x, .q_heads = 1};
    if (auto const s = step.attend(here, l, queries, workspace); !s.ok()) return s;
  }
  return step.commit();
}

/// What concerns whole sequences.
strata::status keep(strata::paged_storage<strata::bf16_codec>& storage,
                    strata::route_plan const& plan, std::span<std::int32_t const> prompt) {
  strata::sequence_id ids[1];
  std::vector<std::byte> bytes(64);
  strata::memory_sink sink(bytes);
  strata::snapshot_options const options{1};
  if (auto const s = strata::save(storage, ids, options, sink); !s.ok()) return s;
  if (auto const n = strata::restore(storage, bytes, options, ids); !n.ok()) return n.state();
  auto index = strata::prefix_index<strata::paged_storage<strata::bf16_codec>>::make(
      storage, strata::prefix_options{16, 4});
  if (!index.ok()) return index.state();
  strata::prefix_owner const owner;
  auto const found = index->find(prompt, plan, owner, strata::reuse::subset);
  auto const id = index->open(storage, plan, found);
  if (!id.ok()) return id.state();
  if (auto const n = index->insert(storage, *id, prompt, owner); !n.ok()) return n.state();
  static_cast<void>(index->evict(storage, 1, 1));
  if (auto const fork = storage.fork(*id); !fork.ok()) return fork.state();
  if (auto const freed = storage.shrink(*id, plan); !freed.ok()) return freed.state();
  auto tier = strata::host_tier<>::make(storage, strata::host_tier_options{1 << 20, 4, 64});
  if (!tier.ok()) return tier.state();
  auto const away = tier->offload(storage, *id);
  if (!away.ok()) return away.state();
  if (auto const n = tier->reload_needs(storage, *away); !n.ok()) return n.state();
  if (auto const s = tier->reload(storage, *away); !s.ok()) return s.state();
  std::int64_t of_layers[strata::max_layers] = {};
  auto const choice = strata::choose_leaders(storage.classes(), of_layers, strata::planner_goals{});
  if (!choice.ok()) return choice.state();
  if (auto const s = strata::forms::from_groups(prompt, prompt, storage.classes()); !s.ok())
    return s.state();
  return storage.truncate(*id, 0);
}

template <class Sampler>
strata::status train(Sampler const& sampler, strata::kv_classes const& model) {
  strata::router<Sampler, strata::reference_attention> router(sampler, model);
  strata::draw_key key;  // clang takes what nvcc makes of {.seed = 1} for an old extension
  key.seed = 1;
  auto const plan = router.draw(key);
  if (!plan.ok()) return plan.state();
  strata::thread_pool threads(2);
  float x[64] = {};
  strata::layer_queries<float> const queries{.q = x, .out = x, .lse = x, .q_heads = 1};
  std::span<strata::layer_tensors<float> const> const none;
  if (auto const s = router.forward(threads, *plan, {0}, queries, none, {1, 1}); !s.ok()) return s;
  return router.backward(threads, *plan, {0}, queries, none, {1, 1}, x, x);
}

}  // namespace

strata::status use_headers() {
  auto const model =
      strata::kv_classes::uniform(4, {.kv = {.kv_heads = 1, .k_dim = 32, .v_dim = 32}});
  auto const plan = strata::make_plan(strata::grouped_map(4, 2), model).value();
  auto const room = strata::contiguous_options::for_plan(plan, 1, 16);
  using bf16 = strata::bf16_codec;
  auto paged = strata::paged_storage<bf16>::make(model, {});
  strata::status const all[] = {
      paged.ok() ? keep(*paged, plan, {}) : paged.state(),
      serve(strata::contiguous_storage<bf16>::make(model, room), plan),
      serve(strata::paged_storage<strata::int8_codec, bf16>::make(model, {}), plan),
      serve(strata::borrowed_storage<bf16>::make(model, {}, 1, 16), plan),
      train(strata::random_previous(0.5), model),
      train(strata::parse_routing("mix:every:2/full", model).value(), model),
  };
  for (auto const& s : all)
    if (!s.ok()) return s;
  return strata::picture(plan).empty() ? strata::status{strata::errc::bad_plan} : strata::status{};
}
