// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What an engine does with strata: per layer, the norm; K and V, but only of the sequences whose
// plan stores them; Q, attention and MLP of the rows that are alive, which above a sequence's tail
// are those that want logits. Sequences of any depth of cache share a batch.
//
// Everything but attention works row by row, so a thread takes a slab of 128 rows from one layer's
// attention to the next one's while it lies in its cache.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <utility>
#include <vector>

#include <strata/stack.hpp>
#include <strata/thread_pool.hpp>

#include "gemm.hpp"
#include "layers.hpp"
#include "served_model.hpp"
#include "server.hpp"
#include "step_memory.hpp"
#include "weight_product.hpp"

namespace lm {

/// A server on a storage and a kernel of the library. The weights and the threads are the caller's
/// and outlive it.
template <class T, strata::cache_storage Storage, class Kernel>
class stack_server final : public server<T> {
  using step_type = strata::step<Storage, Kernel>;

 public:
  stack_server(served_model<T> const& model, Storage storage, strata::thread_pool& pool)
      : config_(model.config),
        weights_(model.weights),
        narrow_(model.narrow),
        pool_(pool),
        stack_(std::move(storage)),
        rope_(stack_.storage().max_tokens(), config_) {
    rule_.window = config_.kind().window;
  }

  using server<T>::run;

  model_config const& config() const noexcept override { return config_; }
  strata::result<strata::sequence_id> open(strata::route_plan const& plan) noexcept override {
    return stack_.open(plan);
  }
  strata::status close(strata::sequence_id id) noexcept override { return stack_.close(id); }
  std::span<T const> logits() const noexcept override {
    return {memory_.logits.data(), static_cast<std::size_t>(logit_rows_ * config_.vocab)};
  }
  std::int32_t max_tokens() const noexcept override { return stack_.storage().max_tokens(); }
  std::int32_t max_sequences() const noexcept override { return stack_.storage().max_sequences(); }
  std::int64_t allocated_bytes() const noexcept override {
    return stack_.storage().allocated_bytes();
  }
  std::int64_t working_bytes() const noexcept override {
    auto const turns = 2 * rope_.positions() * rope_.half() * std::int64_t{sizeof(T)};
    auto const positions = std::int64_t{max_tokens()} * max_sequences() * 4;
    return turns + positions + memory_.bytes();
  }
  std::int32_t length(strata::sequence_id id) const noexcept override {
    return stack_.storage().length(id);
  }
  /// The storage, for what is done to whole sequences between steps.
  Storage& between_steps() noexcept { return stack_.between_steps(); }

  strata::status run(std::span<feed const> batch) noexcept override {
    if (auto const s = take_in(batch); !s.ok()) return s;
    auto step = stack_.begin(entries_);
    if (!step.state().ok()) return step.state();
    if (auto const s = memory_.grow(config_, step.num_rows(), pool_.num_shares()); !s.ok())
      return s;
    if (narrow_)
      if (auto const s = memory_.grow_scratch(config_, pool_.num_shares()); !s.ok()) return s;
    for_parts(step.num_rows(), [&](slab part, product const& multiply) {
      auto const* const tokens = tokens_.data() + part.begin;
      T* const x = memory_.x.data() + part.begin * config_.dim;
      if (narrow_)
        embed(tokens, weights_.embedding.narrow, x, part.count, config_.dim);
      else
        embed(tokens, weights_.embedding.wide, x, part.count, config_.dim);
      enter(step, {0}, part, multiply);
    });
    for (strata::layer_id l{0}; config_.layers > l.index; ++l.index)
      if (auto const s = run_layer(step, l); !s.ok()) return s;
    if (auto const s = compute_logits(step); !s.ok()) return s;
    return step.commit();
  }

  strata::status fill_with_noise(strata::sequence_id id, std::int32_t count) noexcept override {
    constexpr std::int32_t chunk = slab_rows;  // what a thread's k and v hold
    if (auto const s = memory_.grow(config_, chunk, pool_.num_shares()); !s.ok()) return s;
    memory_.fill_with_noise(chunk * std::int64_t{config_.kv_dim()});
    while (count > 0) {
      auto const now = count < chunk ? count : chunk;
      auto step = stack_.begin({id, now, strata::logits::none});
      if (!step.state().ok()) return step.state();
      for_tasks(pool_, config_.layers, [&](std::int64_t task, std::int32_t) {
        strata::layer_id const l{static_cast<std::int32_t>(task)};
        for (auto const& run : step.k_writers(l)) run.store_all(memory_.k.data());
        for (auto const& run : step.v_writers(l)) run.store_all(memory_.v.data());
      });
      if (auto const s = step.commit(); !s.ok()) return s;
      count -= now;
    }
    return {};
  }

 private:
  using product = weight_product<T>;

  /// Many rows: whole slabs go to threads, each with all steps of `body`. Few rows (decoding): one
  /// part, whose products spread over the threads.
  template <class Body>
  void for_parts(std::int64_t rows, Body const& body) noexcept {
    use_single_threaded_blas();
    if (rows > slab_rows)
      for_slabs(pool_, rows, [&](slab part) { body(part, products(false, part.thread)); });
    else if (rows > 0)
      body(slab{0, 0, rows}, products(true, 0));
  }
  product products(bool whole, std::int32_t thread) noexcept {
    return {pool_, whole, memory_.widened.data(), memory_.widened.size() / pool_.num_shares(),
            thread};
  }

  /// Copies the batch into entries_ and tokens_.
  strata::status take_in(std::span<feed const> batch) noexcept try {
    entries_.clear();
    tokens_.clear();
    for (auto const& f : batch) {
      for (auto const token : f.tokens)
        if (token < 0 || token >= config_.vocab)
          return {strata::errc::value_out_of_range, strata::no_layer, token, config_.vocab - 1};
      entries_.push_back({f.sequence, static_cast<std::int32_t>(f.tokens.size()), f.wanted});
      tokens_.insert(tokens_.end(), f.tokens.begin(), f.tokens.end());
    }
    return {};
  } catch (std::bad_alloc const&) {
    return {strata::errc::out_of_memory, strata::no_layer, static_cast<std::int64_t>(batch.size()),
            0};
  }

  layer_weights<T const, weight_matrix<T>> const& layer(strata::layer_id l) const noexcept {
    return weights_.layer[static_cast<std::size_t>(l.index)];
  }

  /// From Q, K and V of a layer to those of the next one. `enter` of this layer has run.
  strata::status run_layer(step_type& step, strata::layer_id l) noexcept {
    auto const live = size(step.live_rows(l));
    if (live == 0) return {};  // the tail of a step that wants no logits
    if (live < size(step.input_rows(l))) {
      step.keep_live(l, memory_.x.data(), config_.dim);
      step.keep_live(l, memory_.h.data(), config_.dim);
      for_parts(live, [&](slab part, product const& multiply) {
        project_q(step.live_positions(l), l, part, multiply);
      });
    }
    if (auto const s = attend(step, l); !s.ok()) return s;
    bool const last = l.index + 1 == config_.layers;
    for_parts(live, [&](slab part, product const& multiply) {
      leave(l, part, multiply);
      if (!last) enter(step, {l.index + 1}, part, multiply);
    });
    return {};
  }

  /// The norm, K and V where they are stored, and Q unless rows are about to drop out.
  void enter(step_type& step, strata::layer_id l, slab part, product const& multiply) noexcept {
    auto const dim = std::int64_t{config_.dim};
    auto const positions = step.live_positions({l.index - 1});  // of the rows that enter
    rms_norm<T>(memory_.x.data() + part.begin * dim, layer(l).attention_norm,
                memory_.h.data() + part.begin * dim, nullptr, part.count, dim,
                config_.norm_epsilon);
    for (auto const& run : step.k_writers(l)) write_k(run, l, part, multiply);
    for (auto const& run : step.v_writers(l)) write_v(run, l, part, multiply);
    if (step.live_rows(l).size() == positions.size()) project_q(positions, l, part, multiply);
  }

  /// The rows that a run and a part have in common.
  template <class Run>
  static slab common_rows(Run const& run, slab part) noexcept {
    auto const run_begin = std::int64_t{run.first_row()};
    auto const begin = run_begin > part.begin ? run_begin : part.begin;
    auto const run_end = run_begin + run.num_rows(), part_end = part.begin + part.count;
    auto const end = run_end < part_end ? run_end : part_end;
    return {part.index, begin, end > begin ? end - begin : 0, part.thread};
  }

  template <class Run>
  void write_k(Run const& run, strata::layer_id l, slab part, product const& multiply) noexcept {
    auto const rows = common_rows(run, part);
    if (rows.count == 0) return;
    auto const dim = std::int64_t{config_.dim}, kv_dim = std::int64_t{config_.kv_dim()};
    auto const& w = layer(l);
    T* const k = memory_.of_thread(memory_.k, part, kv_dim);
    T* const projected = w.k_norm == nullptr ? k : memory_.of_thread(memory_.v, part, kv_dim);
    multiply(memory_.h.data() + rows.begin * dim, w.wk, projected, rows.count, dim, kv_dim);
    norm_heads(projected, w.k_norm, k, rows.count * config_.kv_heads);
    auto const turns = rope_.rotary();
    for_rows(run, rows, [&](std::int32_t row, std::int64_t i) {
      run.store_rotated(row, k + i * kv_dim, turns);
    });
  }

  template <class Run>
  void write_v(Run const& run, strata::layer_id l, slab part, product const& multiply) noexcept {
    auto const rows = common_rows(run, part);
    if (rows.count == 0) return;
    auto const dim = std::int64_t{config_.dim}, kv_dim = std::int64_t{config_.kv_dim()};
    T* const v = memory_.of_thread(memory_.v, part, kv_dim);
    multiply(memory_.h.data() + rows.begin * dim, layer(l).wv, v, rows.count, dim, kv_dim);
    for_rows(run, rows, [&](std::int32_t row, std::int64_t i) { run.store(row, v + i * kv_dim); });
  }

  /// Calls body(row of the run, row of the part) for rows that the two have in common.
  template <class Run, class Body>
  static void for_rows(Run const& run, slab rows, Body const& body) noexcept {
    for (std::int64_t i = 0; i < rows.count; ++i)
      body(static_cast<std::int32_t>(rows.begin - run.first_row() + i), i);
  }

  void project_q(std::span<std::int32_t const> positions, strata::layer_id l, slab part,
                 product const& multiply) noexcept {
    auto const q_dim = std::int64_t{config_.q_dim()};
    auto const& w = layer(l);
    T* const q = memory_.q.data() + part.begin * q_dim;
    T* const projected = w.q_norm == nullptr ? q : memory_.o.data() + part.begin * q_dim;
    multiply(memory_.h.data() + part.begin * config_.dim, w.wq, projected, part.count, config_.dim,
             q_dim);
    norm_heads(projected, w.q_norm, q, part.count * config_.q_heads);
    rope(rope_, q, part.count, config_.q_heads,
         [at = positions.data() + part.begin](std::int64_t r) { return at[r]; });
  }

  /// The norm of Q or K heads, where the model has one. heads, and `projected` where there is a
  /// norm: [num_heads, head_dim].
  void norm_heads(T const* projected, T const* gain, T* heads, std::int64_t num_heads) noexcept {
    if (gain == nullptr) return;
    rms_norm<T>(projected, gain, heads, nullptr, num_heads, config_.head_dim, config_.norm_epsilon);
  }

  /// o = attention of the live rows. Little of it is done by the calling thread alone.
  strata::status attend(step_type& step, strata::layer_id l) noexcept {
    strata::layer_queries<T> queries;
    queries.q = memory_.q.data();
    queries.out = memory_.o.data();
    queries.q_heads = config_.q_heads;
    queries.rule = rule_;
    auto const view = step.view(l);
    if (!view.ok()) return view.state();
    std::int64_t keys = 0;
    for (std::int32_t s = 0; s < view->rows.num_seqs; ++s) keys += view->length(s, 0);
    auto const rows = size(step.live_rows(l)) / view->rows.num_seqs + 1;  // per sequence
    constexpr std::int64_t worth_spreading = 1 << 18;                     // multiply-adds
    if (rows * keys * config_.q_dim() < worth_spreading)
      return attend_with(serial_, step, l, queries);
    return attend_with(pool_, step, l, queries);
  }

  template <class Executor>
  strata::status attend_with(Executor& executor, step_type& step, strata::layer_id l,
                             strata::layer_queries<T> const& queries) noexcept {
    auto const bytes = step.workspace_bytes(l, queries, executor.num_shares());
    if (!bytes.ok()) return bytes.state();
    if (auto const s = memory_.attention.grow(*bytes); !s.ok()) return s;
    return step.attend(
        executor, l, queries,
        {memory_.attention.data(), static_cast<std::size_t>(memory_.attention.size())});
  }

  /// From the attention's output to the next layer's input: x += o Wo^T, x += MLP(norm(x)).
  void leave(strata::layer_id l, slab part, product const& multiply) noexcept {
    auto const dim = std::int64_t{config_.dim}, mlp = std::int64_t{config_.mlp};
    auto const& w = layer(l);
    T* const x = memory_.x.data() + part.begin * dim;
    T* const h = memory_.h.data() + part.begin * dim;
    T* const gate = memory_.of_thread(memory_.gate, part, mlp);
    T* const up = memory_.of_thread(memory_.up, part, mlp);
    T* const act = memory_.of_thread(memory_.act, part, mlp);
    multiply(memory_.o.data() + part.begin * config_.q_dim(), w.wo, x, part.count, config_.q_dim(),
             dim, 1);
    rms_norm<T>(x, w.mlp_norm, h, nullptr, part.count, dim, config_.norm_epsilon);
    multiply(h, w.w_gate, gate, part.count, dim, mlp);
    multiply(h, w.w_up, up, part.count, dim, mlp);
    swiglu(gate, up, act, part.count * mlp);
    multiply(act, w.w_down, x, part.count, mlp, dim, 1);
  }

  strata::status compute_logits(step_type& step) noexcept {
    auto const dim = std::int64_t{config_.dim}, vocab = std::int64_t{config_.vocab};
    auto const rows = size(step.logit_rows());
    if (auto const s = memory_.logits.grow(rows * vocab); !s.ok()) return s;
    logit_rows_ = rows;
    step.keep_logits({config_.layers - 1}, memory_.x.data(), dim);
    for_parts(rows, [&](slab part, product const& multiply) {
      T* const h = memory_.h.data() + part.begin * dim;
      rms_norm<T>(memory_.x.data() + part.begin * dim, weights_.final_norm, h, nullptr, part.count,
                  dim, config_.norm_epsilon);
      multiply(h, weights_.head, memory_.logits.data() + part.begin * vocab, part.count, dim,
               vocab);
    });
    return {};
  }

  static std::int64_t size(std::span<std::int32_t const> rows) noexcept {
    return static_cast<std::int64_t>(rows.size());
  }

  model_config config_;
  model_weights<T const, weight_matrix<T>> weights_;
  bool narrow_ = false;  // weights are bf16
  strata::thread_pool& pool_;
  strata::serial_executor serial_;
  strata::stack<Storage, Kernel> stack_;
  rope_table<T> rope_;  // [max_tokens]
  strata::score_rule rule_;

  std::vector<strata::batch_entry> entries_;
  std::vector<std::int32_t> tokens_;  // [rows]
  step_memory<T> memory_;
  std::int64_t logit_rows_ = 0;
};

}  // namespace lm
