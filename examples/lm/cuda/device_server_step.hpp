// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Steps of lm::cuda::device_server: what is checked, sent, recorded and committed; included by
// device_server.hpp.
#pragma once

#include "cuda/device_server.hpp"

namespace lm::cuda {

template <class Machine, strata::cache_storage Storage>
  requires serving_machine<Machine, Storage>
strata::status device_server<Machine, Storage>::run(std::span<feed const> batch) noexcept {
  return reporting([&]() -> strata::status {
    if (auto const s = take_in(batch); !s.ok()) return s;
    auto step = stack_.begin(entries_);
    if (!step.state().ok()) return step.state();
    auto const wanted = size(step.logit_rows());
    if (wanted > room_.logit_rows)
      return {strata::errc::too_many_rows, strata::no_layer, wanted, room_.logit_rows};
    if (auto const s = send(step); !s.ok()) return s;
    auto const done = advance(step);
    settle();  // also where it stopped half way: what was enqueued reads this step's numbers
    if (!done.ok()) return done;
    if (auto const s = step.commit(); !s.ok()) return s;
    logit_rows_ = wanted;
    return {};
  });
}

/// What body() returns, or what it throws as a status.
template <class Machine, strata::cache_storage Storage>
  requires serving_machine<Machine, Storage>
template <class Body>
strata::status device_server<Machine, Storage>::reporting(Body const& body) noexcept {
  try {
    return body();
  } catch (machine_failure const& f) {
    tell(f);
    return {strata::errc::device_failure, strata::no_layer, f.error(), 0};
  } catch (failure const& f) {
    tell(f);
    return {strata::errc::unsupported};
  } catch (std::bad_alloc const&) {
    constexpr std::int64_t entry = sizeof(recording);  // the largest thing that a step allocates
    return {strata::errc::out_of_memory, strata::no_layer, entry, 0};
  }
}

/// A status has no room for the sentence: it goes to stderr. Of a server's first failure; those that
/// follow are mostly its consequence.
template <class Machine, strata::cache_storage Storage>
  requires serving_machine<Machine, Storage>
void device_server<Machine, Storage>::tell(failure const& f) noexcept {
  if (!told_) std::fprintf(stderr, "device: %s\n", f.what());
  told_ = true;
}

/// Waits for what was enqueued.
template <class Machine, strata::cache_storage Storage>
  requires serving_machine<Machine, Storage>
void device_server<Machine, Storage>::settle() {
  if (under_way_) machine_.wait();
  under_way_ = false;
}

/// Copies the batch into entries_ and numbers_.
template <class Machine, strata::cache_storage Storage>
  requires serving_machine<Machine, Storage>
strata::status device_server<Machine, Storage>::take_in(std::span<feed const> batch) {
  std::int64_t rows = 0;
  for (auto const& f : batch) {
    for (auto const token : f.tokens)
      if (token < 0 || token >= config_.vocab)
        return {strata::errc::value_out_of_range, strata::no_layer, token, config_.vocab - 1};
    rows += size(f.tokens);
  }
  if (rows > room_.rows) return {strata::errc::too_many_rows, strata::no_layer, rows, room_.rows};
  settle();
  entries_.clear();
  num_numbers_ = 0;
  one_each_ = !batch.empty();
  for (auto const& f : batch) {
    entries_.push_back({f.sequence, static_cast<std::int32_t>(f.tokens.size()), f.wanted});
    one_each_ = one_each_ && f.tokens.size() == 1 && f.wanted != strata::logits::none;
    for (auto const token : f.tokens) numbers_.data()[num_numbers_++] = token;
  }
  return {};
}

/// Brings to the device what it is to know of a step: strata's tables in the mirror's copy, tokens
/// and the rows to gather in another.
template <class Machine, strata::cache_storage Storage>
  requires serving_machine<Machine, Storage>
strata::status device_server<Machine, Storage>::send(step_type& step) {
  for (strata::layer_id l{0}; config_.layers > l.index; ++l.index)
    keep(static_cast<std::size_t>(l.index), step.input_rows(l), step.live_rows(l));
  keep(kept_.size() - 1, step.live_rows({config_.layers - 1}), step.logit_rows());
  under_way_ = true;
  if (auto const s = mirror_.send(step); !s.ok()) return s;
  std::span<std::int32_t const> const all(numbers_.data(), static_cast<std::size_t>(num_numbers_));
  machine_.upload(all, memory_.numbers);
  return {};
}

/// Notes which of the rows `from` are kept; both ascend.
template <class Machine, strata::cache_storage Storage>
  requires serving_machine<Machine, Storage>
void device_server<Machine, Storage>::keep(std::size_t which, std::span<std::int32_t const> from,
                                           std::span<std::int32_t const> kept) noexcept {
  kept_[which] = {-1, size(kept)};
  if (from.size() == kept.size()) return;
  kept_[which].begin = num_numbers_;
  std::size_t at = 0;
  for (auto const row : kept) {
    while (from[at] != row) ++at;
    numbers_.data()[num_numbers_++] = static_cast<std::int32_t>(at);
  }
}

/// Enqueues a step, from a recording where there is one.
template <class Machine, strata::cache_storage Storage>
  requires serving_machine<Machine, Storage>
strata::status device_server<Machine, Storage>::advance(step_type& step) {
  if (!one_each_ || !records_) return enqueue(step);
  auto const shape = shape_of(step);
  if (auto const known = recordings_.find(shape); known != recordings_.end())
    return replay(step, known->second);
  if (auto const s = enqueue(step); !s.ok()) return s;  // asks for every product
  if (recordings_.size() >= most_recordings) recordings_.clear();
  recordings_.try_emplace(shape);
  return {};
}

template <class Machine, strata::cache_storage Storage>
  requires serving_machine<Machine, Storage>
recorded_shape device_server<Machine, Storage>::shape_of(step_type& step) noexcept {
  recorded_shape shape;
  shape.sequences = static_cast<std::int32_t>(entries_.size());
  for (strata::layer_id l{0}; config_.layers > l.index; ++l.index) {
    if (!step.k_writers(l).empty()) recorded_shape::add(shape.k, l);
    if (!step.v_writers(l).empty()) recorded_shape::add(shape.v, l);
  }
  return shape;
}

template <class Machine, strata::cache_storage Storage>
  requires serving_machine<Machine, Storage>
strata::status device_server<Machine, Storage>::replay(step_type& step, recording& known) {
  if (known.recorded) {
    for (strata::layer_id l{0}; config_.layers > l.index; ++l.index) {
      for (auto const& run : step.k_writers(l)) run.mark_stored();
      for (auto const& run : step.v_writers(l)) run.mark_stored();
    }
  } else {
    strata::status done;
    machine_.record(known.graph, [&] { done = enqueue(step); });
    if (!done.ok()) return done;
    known.recorded = true;
  }
  machine_.replay(known.graph);
  ++replays_;
  return {};
}

template <class Machine, strata::cache_storage Storage>
  requires serving_machine<Machine, Storage>
strata::status device_server<Machine, Storage>::fill_with_noise(strata::sequence_id id,
                                                                std::int32_t count) noexcept {
  return reporting([&]() -> strata::status {
    // All of it or nothing.
    if (auto const s = stack_.begin({id, count, strata::logits::none}).state(); !s.ok()) return s;
    settle();
    while (count > 0) {
      auto const now = std::min(count, room_.rows);
      if (auto const s = append_noise(id, now); !s.ok()) return s;
      count -= now;
    }
    return {};
  });
}

/// The noise is [rows of K, rows of V], another one each time.
template <class Machine, strata::cache_storage Storage>
  requires serving_machine<Machine, Storage>
strata::status device_server<Machine, Storage>::append_noise(strata::sequence_id id,
                                                             std::int32_t count) {
  auto step = stack_.begin({id, count, strata::logits::none});
  if (!step.state().ok()) return step.state();
  under_way_ = true;
  if (auto const s = mirror_.send(step); !s.ok()) return s;
  machine_.launch(
      fill_noise{memory_.projected, std::int64_t{room_.rows} * 2 * config_.kv_dim(), ++noises_});
  bfloat16 const* const k = memory_.projected;
  auto const* const v = k + std::int64_t{room_.rows} * config_.kv_dim();
  strata::status done;
  for (strata::layer_id l{0}; config_.layers > l.index && done.ok(); ++l.index)
    done = machine_.template append<k_codec, v_codec>(mirror_.k_side(step, l, k),
                                                      mirror_.v_side(step, l, v), {});
  settle();
  return done.ok() ? step.commit() : done;
}

}  // namespace lm::cuda
