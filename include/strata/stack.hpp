// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Serving: sequences with a plan each, a storage, and a kernel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <utility>

#include <strata/cache/storage.hpp>
#include <strata/config.hpp>
#include <strata/plan.hpp>
#include <strata/step.hpp>

STRATA_NAMESPACE_BEGIN

/// Composes a storage with a kernel. Move-only, as the storage is; not to be moved during a step.
/// Threads: const calls at the same time; any other call, a step's begin and end too, alone.
template <cache_storage Storage, class Kernel>
class stack {
 public:
  using storage_type = Storage;
  using kernel_type = Kernel;

  explicit stack(Storage storage, Kernel kernel = {}) noexcept
      : storage_(std::move(storage)), kernel_(kernel) {}

  /// To look at; its sequences grow through steps only.
  Storage const& storage() const noexcept { return storage_; }
  /// For what is done to whole sequences between steps: prefixes, snapshots, relief.
  Storage& between_steps() noexcept { return storage_; }
  Kernel const& kernel() const noexcept { return kernel_; }

  /// Takes a sequence in; each of its layers is read as the plan says. Refuses a plan that is not
  /// one of this model, wherever it comes from.
  result<sequence_id> open(route_plan const& plan) noexcept {
    if (auto const s = check(plan, storage_.classes(), use::serving); !s.ok()) return s;
    return storage_.open(plan);
  }
  status close(sequence_id id) noexcept { return storage_.close(id); }

  /// Of storages that have them, a paged one for instance: see there.
  result<sequence_id> fork(sequence_id parent) noexcept
    requires requires(Storage& s) { s.fork(parent); }
  {
    return storage_.fork(parent);
  }
  status truncate(sequence_id id, std::int32_t length) noexcept
    requires requires(Storage& s) { s.truncate(id, length); }
  {
    return storage_.truncate(id, length);
  }
  result<pool_bytes> shrink(sequence_id id, route_plan const& plan) noexcept
    requires requires(Storage& s) { s.shrink(id, plan); }
  {
    return storage_.shrink(id, plan);
  }

  /// Sorts a batch: the sequences that store most K and V tensors first, equal ones as they were.
  /// Where the leaders of a shallower plan are among those of every deeper one, the rows that store
  /// a layer are then adjacent: one run in `step.k_writers(layer)`, one product for its projection.
  /// What a sequence computes does not depend on its place, so this changes no bit. The sequences
  /// are open. Allocates nothing; O(n) for a batch that is nearly sorted, as the last step's is.
  void sort_by_depth(std::span<batch_entry> batch) const noexcept {
    for (std::size_t i = 1; i < batch.size(); ++i) {
      auto const entry = batch[i];
      auto const depth = stored_tensors(entry.sequence);
      auto to = i;
      for (; to > 0 && stored_tensors(batch[to - 1].sequence) < depth; --to)
        batch[to] = batch[to - 1];
      batch[to] = entry;
    }
  }

  /// Starts a step; one at a time. Ask its state() first: a refused step has reserved nothing.
  [[nodiscard]] step<Storage, Kernel> begin(std::span<batch_entry const> batch) noexcept {
    return {storage_, kernel_, scratch_, batch};
  }
  [[nodiscard]] step<Storage, Kernel> begin(batch_entry const& entry) noexcept {
    return begin(std::span(&entry, 1));
  }
  /// begin({{a, 3}, {b, 4}}): the batch is read here and not kept.
  [[nodiscard]] step<Storage, Kernel> begin(std::initializer_list<batch_entry> batch) noexcept {
    return begin(std::span(batch.begin(), batch.size()));
  }

 private:
  std::int32_t stored_tensors(sequence_id id) const noexcept {
    auto const& plan = storage_.plan(id);
    return plan.k_slots + plan.v_slots;
  }

  Storage storage_;
  Kernel kernel_;
  detail::step_scratch<typename Storage::k_codec, typename Storage::v_codec> scratch_;
};

STRATA_NAMESPACE_END
