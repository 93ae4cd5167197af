// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Continuous batching under a ceiling of memory: requests of any depth of cache share a batch. Where
// blocks are missing, first what only the index of prefixes holds goes, then running requests give up
// depth, a rung at a time, and only then one leaves for a tier of host memory and waits there.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <strata/attention/cpu/attention.hpp>
#include <strata/cache/host_tier.hpp>
#include <strata/cache/paged_storage.hpp>
#include <strata/cache/prefix_index.hpp>
#include <strata/cache/pressure.hpp>
#include <strata/thread_pool.hpp>

#include "failure.hpp"
#include "generate.hpp"
#include "parameters.hpp"
#include "serving.hpp"
#include "stack_server.hpp"

namespace adaptive {

struct request {
  enum class status { waiting, prefill, decoding, away, done };

  std::string strategy;              ///< as it was asked for
  std::vector<std::int32_t> tokens;  ///< the prompt, and what came of it
  std::size_t prompt_size = 0;
  std::int32_t wanted = 0;  ///< new tokens

  status state = status::waiting;
  strata::sequence_id sequence;
  std::size_t computed = 0;  // tokens whose K and V are there
  std::int32_t shared = 0;   // of them those that another request had computed
  strata::tier_id place;     // while it is away

  bool running() const { return state == status::prefill || state == status::decoding; }
  std::size_t end() const { return prompt_size + static_cast<std::size_t>(wanted); }
};

/// What happened, for the report.
struct counts {
  std::int64_t steps = 0, shrinks = 0, evicted_blocks = 0, offloads = 0, shared_tokens = 0;
  std::int64_t peak_bytes = 0;
};

class scheduler {
 public:
  using storage_type = strata::paged_storage<strata::f16_codec>;
  static constexpr std::int32_t block_size = 16, chunk = 64;
  static constexpr std::int64_t tier_bytes = std::int64_t{256} << 20;

  /// bytes: all that K and V may take, of `batch` requests at most at a time.
  scheduler(lm::parameters<float> const& model, strata::thread_pool& threads, std::int64_t bytes,
            std::int32_t batch, std::int32_t max_tokens)
      : config_(model.config()),
        server_(model, make_storage(config_, bytes, batch, max_tokens), threads),
        index_(*strata::prefix_index<storage_type>::make(storage(), {1024, 16})),
        tier_(*strata::host_tier<>::make(storage(), {.bytes = tier_bytes})),
        batch_(static_cast<std::size_t>(batch)),
        block_bytes_(storage().allocated_bytes() /
                     (storage().free_k_blocks() + storage().free_v_blocks())) {
    for (char const* const rung : {"full", "every:2", "every:4", "every:8"})
      ladder_.push_back(lm::resolve_strategy(rung, config_).plan);
  }

  std::vector<request> requests;

  counts const& so_far() const { return counts_; }
  storage_type& storage() { return server_.between_steps(); }
  bool done() const {
    return std::ranges::all_of(requests, [](auto& r) { return r.state == request::status::done; });
  }

  /// One step of the whole batch.
  void tick() {
    for (auto& r : requests) admit(r);
    std::vector<request*> batch;
    for (auto& r : requests)
      if (r.running()) batch.push_back(&r);
    // The youngest waits in the tier until the others have room.
    while (!make_room(batch)) {
      if (batch.size() < 2)
        throw lm::failure("one request alone does not fit under the ceiling",
                          lm::exit_code::does_not_fit);
      offload(*batch.back());
      batch.pop_back();
    }
    // Nested leader sets, the deepest first: one product per layer projects all rows that it stores.
    std::ranges::stable_sort(batch, std::ranges::greater{}, [&](auto* r) { return depth(*r); });
    run(batch);
    ++counts_.steps;
    auto const& pool = storage();
    auto const used =
        pool.allocated_bytes() - block_bytes_ * (pool.free_k_blocks() + pool.free_v_blocks());
    counts_.peak_bytes = std::max(counts_.peak_bytes, used);
  }

  /// Layers that keep K and V for a request now.
  std::int32_t depth(request const& r) { return storage().plan(r.sequence).k_slots; }
  /// Bytes of the blocks that it holds, alone or with others.
  std::int64_t bytes(request const& r) {
    auto const blocks = (storage().length(r.sequence) + block_size - 1) / block_size;
    return 2 * block_bytes_ * blocks * depth(r);
  }

 private:
  static storage_type make_storage(lm::model_config const& config, std::int64_t bytes,
                                   std::int32_t batch, std::int32_t max_tokens) {
    strata::paged_options options;
    options.max_sequences = batch;
    options.max_tokens = max_tokens;
    options.block_size = block_size;
    options.k_blocks = options.v_blocks = 1;
    auto const one = storage_type::memory_bytes(config.classes(), options);
    lm::require(one.state(), "the cache");
    auto const blocks = bytes / (one->k + one->v);
    options.k_blocks = options.v_blocks = static_cast<std::int32_t>(
        std::min<std::int64_t>(std::max<std::int64_t>(blocks, 1), 1 << 24));
    auto made = storage_type::make(config.classes(), options);
    lm::require(made.state(), "the cache");
    return *std::move(made);
  }
  /// Takes a request in: from the tier, or with what the index knows of its prompt.
  void admit(request& r) {
    auto const running = std::ranges::count_if(requests, [](auto& q) { return q.running(); });
    if (static_cast<std::size_t>(running) >= batch_) return;
    if (r.state == request::status::away) return reload(r);
    if (r.state != request::status::waiting) return;
    auto const plan = lm::resolve_strategy(r.strategy, config_).plan;
    auto const known = index_.find(std::span(r.tokens).first(r.prompt_size), plan, {});
    auto const id = index_.open(storage(), plan, known);
    lm::require(id.state(), "opening a request");
    r.sequence = *id;
    r.state = request::status::prefill;
    r.computed = static_cast<std::size_t>(known.num_tokens);
    r.shared = known.num_tokens;
    counts_.shared_tokens += known.num_tokens;
  }

  void offload(request& r) {
    auto const place = tier_.offload(storage(), r.sequence);
    lm::require(place.state(), "offloading a request");
    r.place = *place;
    r.state = request::status::away;
    ++counts_.offloads;
  }
  void reload(request& r) {
    auto id = tier_.reload(storage(), r.place);
    if (!id.ok()) {  // prefixes that nobody uses may have its room
      auto const needs = tier_.reload_needs(storage(), r.place);
      lm::require(needs.state(), "reloading a request");
      counts_.evicted_blocks += index_
                                    .evict(storage(), needs->k - storage().free_k_blocks(),
                                           needs->v - storage().free_v_blocks())
                                    .k;
      id = tier_.reload(storage(), r.place);
    }
    if (!id.ok()) return;  // no room yet
    r.sequence = *id;
    r.state = r.computed < r.prompt_size ? request::status::prefill : request::status::decoding;
  }

  /// The tokens that a request brings to the next step.
  static std::size_t next_tokens(request const& r) {
    auto const left = r.tokens.size() - r.computed;
    return std::min<std::size_t>(left, chunk);
  }

  /// Whether the step has room, now or after others gave up what they can.
  bool make_room(std::span<request* const> batch) {
    std::vector<strata::growth> growths;
    std::vector<strata::sequence_id> running;
    for (auto const* r : batch) {
      growths.push_back({r->sequence, static_cast<std::int32_t>(next_tokens(*r))});
      running.push_back(r->sequence);
    }
    auto missing = storage().missing_blocks(growths);
    lm::require(missing.state(), "a step");
    if (missing->k == 0 && missing->v == 0) return true;
    counts_.evicted_blocks += index_.evict(storage(), missing->k, missing->v).k;
    missing = storage().missing_blocks(growths);
    if (missing->k == 0 && missing->v == 0) return true;
    std::vector<std::int32_t> before;
    for (auto* r : batch) before.push_back(depth(*r));
    auto const freed =
        strata::relieve(storage(), ladder_, running, *missing, strata::shrink_longest{});
    for (std::size_t i = 0; i < batch.size(); ++i) counts_.shrinks += depth(*batch[i]) < before[i];
    return freed.ok();
  }

  void run(std::span<request* const> batch) {
    std::vector<lm::feed> feeds;
    for (auto const* r : batch) {
      auto const count = next_tokens(*r);
      bool const last = r->computed + count == r->tokens.size();
      feeds.push_back({r->sequence, std::span(r->tokens).subspan(r->computed, count),
                       last ? strata::logits::last : strata::logits::none});
    }
    lm::require(server_.run(feeds), "a step");
    auto logits = server_.logits();
    for (std::size_t i = 0; i < batch.size(); ++i) {
      auto& r = *batch[i];
      r.computed += feeds[i].tokens.size();
      if (feeds[i].wanted == strata::logits::none) continue;
      auto const row = logits.first(static_cast<std::size_t>(config_.vocab));
      logits = logits.subspan(row.size());
      if (r.state == request::status::prefill) learn(r);
      r.state = request::status::decoding;
      r.tokens.push_back(lm::choose_token<float>(row, 0, 0, 0));
      if (r.tokens.size() < r.end()) continue;
      lm::require(server_.close(r.sequence), "closing a request");
      r.state = request::status::done;
    }
  }

  /// A whole prompt is there: others may begin like it. What is approximate is not learnt.
  void learn(request const& r) {
    static_cast<void>(index_.insert(storage(), r.sequence, r.tokens, {}));
  }

  lm::model_config config_;
  lm::stack_server<float, storage_type, strata::cpu::attention> server_;
  strata::prefix_index<storage_type> index_;
  strata::host_tier<> tier_;
  std::vector<strata::route_plan> ladder_;
  std::size_t batch_;
  std::int64_t block_bytes_;  // K and V are alike
  counts counts_;
};

}  // namespace adaptive
