// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Layers that serve: a stack whose layers share caches in groups, filled with random K/V, on which
// steps of new tokens are run and abandoned, so that every iteration finds the same context.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <strata/attention/cpu/attention.hpp>
#include <strata/cache/contiguous_storage.hpp>
#include <strata/cache/footprint.hpp>
#include <strata/cache/int8_codec.hpp>
#include <strata/cache/rope.hpp>
#include <strata/map/grouped_map.hpp>
#include <strata/stack.hpp>

#include "codec_name.hpp"
#include "machine.hpp"

namespace bench {

/// Attention of Llama-3.1-8B, Mistral-7B and Qwen3-8B, in fewer layers: 4 query heads per KV head.
struct model_shape {
  std::int32_t layers = 8;
  std::int32_t q_heads = 32, kv_heads = 8, dim = 128;

  strata::kv_classes classes() const {
    strata::layer_kind kind;
    kind.kv.kv_heads = kv_heads;
    kind.kv.k_dim = kind.kv.v_dim = dim;
    return strata::kv_classes::uniform(layers, kind);
  }
};

/// What happens to K between its projection and the cache: nothing, RoPE over a slab of rows before
/// they are stored, as engines have it, or RoPE while each is stored.
enum class rope_place { none, before, fused };

template <class Codec>
class cache_model {
 public:
  using storage = strata::contiguous_storage<Codec>;

  /// `group` layers read one cache. Steps have `new_tokens` for each of `batch` sequences.
  cache_model(strata::thread_pool& pool, model_shape const& shape, std::int32_t group,
              std::int32_t batch, std::int32_t context, std::int32_t new_tokens,
              rope_place rope = rope_place::none)
      : pool_(pool),
        shape_(shape),
        context_(context),
        plan_(*make_plan(strata::grouped_map(shape.layers, group), shape.classes())),
        stack_(make_storage(batch, context + new_tokens)),
        rows_(std::int64_t{batch} * new_tokens),
        q_(random_floats(rows_ * shape.q_heads * shape.dim, 1)),
        kv_(random_floats(std::int64_t{1} << 22, 2)),
        out_(q_.size()),
        rope_(rope) {
    if (rope != rope_place::none) make_tables(context + new_tokens);
    for (std::int32_t i = 0; i < batch; ++i)
      batch_.push_back({*stack_.open(plan_), 0, strata::logits::all});
    fill();
    for (auto& entry : batch_) entry.new_tokens = new_tokens;
  }

  /// One step through all layers, abandoned. Without `attend`, only K and V are stored.
  void step(bool attend) {
    auto step = stack_.begin(batch_);
    require(step.state());
    for (strata::layer_id l{0}; l.index < shape_.layers; ++l.index) {
      store(step, l);
      if (!attend) continue;
      strata::layer_queries<float> queries;
      queries.q = q_.data();
      queries.out = out_.data();
      queries.q_heads = shape_.q_heads;
      if (workspace_ == nullptr)
        workspace_ =
            std::make_unique<aligned_memory>(*step.workspace_bytes(l, queries, pool_.num_shares()));
      require(step.attend(pool_, l, queries, workspace_->get()));
    }
  }

  // Per step.
  double rows() const { return static_cast<double>(rows_); }
  double stored_bytes() const { return rows() * plan_bytes_per_token(); }
  /// K and V that attention reads, each once: `group` times what is stored.
  double read_bytes() const {
    auto const identity = strata::identity_bytes_per_token<Codec>(shape_.classes());
    return static_cast<double>(identity) * static_cast<double>(batch_.size()) *
           (context_ + static_cast<double>(batch_[0].new_tokens));
  }
  /// Of causal attention: 4 per query head, element and key seen.
  double flops() const {
    double const tokens = batch_[0].new_tokens;
    return 4.0 * shape_.layers * shape_.q_heads * shape_.dim * rows() *
           (context_ + (tokens + 1) / 2);
  }
  double kv_bytes() const { return static_cast<double>(stack_.storage().allocated_bytes()); }

 private:
  double plan_bytes_per_token() const {
    return static_cast<double>(strata::bytes_per_token<Codec>(plan_, shape_.classes()));
  }

  storage make_storage(std::int32_t batch, std::int32_t tokens) const {
    return storage(shape_.classes(), strata::contiguous_options::for_plan(plan_, batch, tokens));
  }

  /// In chunks, each from another place of the random numbers.
  void fill() {
    for (std::int32_t done = 0; done < context_;) {
      auto const chunk = std::min(context_ - done, 256);
      for (auto& entry : batch_) entry.new_tokens = chunk;
      auto step = stack_.begin(batch_);
      require(step.state());
      for (strata::layer_id l{0}; l.index < shape_.layers; ++l.index) store(step, l);
      require(step.commit());
      done += chunk;
      at_ = at_ * 5 + 7919;
    }
  }

  template <class Step>
  void store(Step& step, strata::layer_id l) {
    auto const k_runs = step.k_writers(l);
    auto const v_runs = step.v_writers(l);
    if (k_runs.empty() && v_runs.empty()) return;
    auto const store_share = [&](strata::share part) noexcept -> strata::status {
      for (auto const& run : k_runs) {
        if (rope_ == rope_place::none)
          store(run, part, at_);
        else
          store_turned(run, part);
      }
      for (auto const& run : v_runs) store(run, part, at_ + 31);
      return {};
    };
    // To wake threads takes some 20 us, as long as to store 64 rows.
    constexpr std::int64_t worth_waking = 64;
    strata::serial_executor here;
    require(rows_ < worth_waking ? here.run(store_share) : pool_.run(store_share));
  }
  template <class Run>
  void store(Run const& run, strata::share part, std::uint32_t from) const noexcept {
    auto const width = static_cast<std::uint32_t>(shape_.kv_heads * shape_.dim);
    auto const slots = static_cast<std::uint32_t>(kv_.size()) / width;
    for (auto i = part.begin(run.num_rows()); i < part.end(run.num_rows()); ++i) {
      auto const row = (from + static_cast<std::uint32_t>(run.first_row() + i)) % slots;
      run.store(static_cast<std::int32_t>(i), kv_.data() + std::size_t{row} * width);
    }
  }

  /// Rows of K as the projection leaves them, in slabs of 128.
  template <class Run>
  void store_turned(Run const& run, strata::share part) noexcept {
    constexpr std::int64_t slab = 128;
    auto const turns = strata::rotary<float>::of(
        cos_.data(), sin_.data(), static_cast<std::int32_t>(2 * cos_.size()) / shape_.dim,
        shape_.dim);
    auto const end = part.end(run.num_rows());
    for (auto begin = part.begin(run.num_rows()); begin < end; begin += slab) {
      auto const slab_end = std::min(begin + slab, end);
      for (auto i = begin; i < slab_end && rope_ == rope_place::before; ++i)
        for (std::int32_t h = 0; h < shape_.kv_heads; ++h)
          turn_in_place(k_row(run, i) + std::int64_t{h} * shape_.dim,
                        run.position(static_cast<std::int32_t>(i)));
      for (auto i = begin; i < slab_end; ++i) {
        if (rope_ == rope_place::before)
          run.store(static_cast<std::int32_t>(i), k_row(run, i));
        else
          run.store_rotated(static_cast<std::int32_t>(i), k_row(run, i), turns);
      }
    }
  }
  /// As an engine does it before it stores.
  void turn_in_place(float* head, std::int32_t position) const noexcept {
    auto const half = shape_.dim / 2;
    float const* STRATA_RESTRICT const c = cos_.data() + std::int64_t{position} * half;
    float const* STRATA_RESTRICT const s = sin_.data() + std::int64_t{position} * half;
    float* STRATA_RESTRICT const low = head;
    float* STRATA_RESTRICT const high = head + half;
    for (std::int32_t j = 0; j < half; ++j) {
      float const a = low[j], b = high[j];
      low[j] = a * c[j] - b * s[j];
      high[j] = b * c[j] + a * s[j];
    }
  }
  template <class Run>
  float* k_row(Run const& run, std::int64_t i) noexcept {
    return k_.data() + (run.first_row() + i) * shape_.kv_heads * shape_.dim;
  }

  void make_tables(std::int32_t positions) {
    k_ = random_floats(rows_ * shape_.kv_heads * shape_.dim, 3);
    auto const half = shape_.dim / 2;
    for (std::int32_t at = 0; at < positions; ++at)
      for (std::int32_t j = 0; j < half; ++j) {
        auto const angle = at * std::pow(500000.0, -static_cast<double>(j) / half);
        cos_.push_back(static_cast<float>(std::cos(angle)));
        sin_.push_back(static_cast<float>(std::sin(angle)));
      }
  }

  strata::thread_pool& pool_;
  model_shape shape_;
  std::int32_t context_;
  strata::route_plan plan_;
  strata::stack<storage, strata::cpu::attention> stack_;
  std::int64_t rows_;
  std::vector<float> q_;    // [rows, q_heads, dim], the same in every layer
  std::vector<float> kv_;   // where K and V rows are taken from
  std::vector<float> out_;  // [rows, q_heads, dim]
  std::vector<strata::batch_entry> batch_;
  std::unique_ptr<aligned_memory> workspace_;
  std::uint32_t at_ = 0;
  rope_place rope_;
  std::vector<float> k_;          // [rows, kv_heads, dim], what a step rotates
  std::vector<float> cos_, sin_;  // [positions, dim / 2]
};

}  // namespace bench
