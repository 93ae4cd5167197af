// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The toy model served by a stack, as an engine would do it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include <strata/stack.hpp>

#include "share_executor.hpp"
#include "toy_model.hpp"

namespace support {

/// What one sequence brings to a batch.
struct toy_entry {
  strata::sequence_id sequence;
  std::vector<std::int32_t> tokens;
  strata::logits wanted = strata::logits::all;
  std::int32_t first_position = strata::continue_position;
};

/// What a step gave: a row of `width` numbers for every batch row that wanted logits.
template <class T>
struct toy_output {
  strata::status state;
  std::vector<std::int32_t> rows;  // of the batch
  std::vector<T> logits;           // [rows, width]
};

/// T: of weights, activations and queries.
template <class T, class Stack>
class toy_server {
 public:
  toy_server(toy_model<T> const& model, Stack& stack, share_executor exec = {})
      : model_(model), stack_(stack), exec_(exec) {}

  Stack& stack() { return stack_; }

  /// Drops the recurrent states of a sequence that is closed.
  void forget(strata::sequence_id id) {
    std::erase_if(states_, [&](auto const& s) { return s.first.second == id.index; });
  }

  /// One step. Without `commit` it is computed to the end and then dropped.
  toy_output<T> serve(std::vector<toy_entry> const& entries, bool commit = true) {
    std::vector<strata::batch_entry> batch;
    std::vector<std::int32_t> tokens;
    for (auto const& e : entries) {
      auto const count = static_cast<std::int32_t>(e.tokens.size());
      batch.push_back({e.sequence, count, e.wanted, e.first_position});
      tokens.insert(tokens.end(), e.tokens.begin(), e.tokens.end());
      sequence_of_.insert(sequence_of_.end(), e.tokens.size(), e.sequence.index);
    }
    auto output = run(batch, tokens, commit);
    sequence_of_.clear();
    return output;
  }

 private:
  using states = std::map<std::pair<std::int32_t, std::int32_t>, std::vector<T>>;

  T* row(std::vector<T>& x, std::int64_t i, std::int64_t row_size) const {
    return x.data() + i * row_size;
  }

  toy_output<T> run(std::vector<strata::batch_entry> const& batch,
                    std::vector<std::int32_t> const& tokens, bool commit) {
    auto step = stack_.begin(batch);
    if (!step.state().ok()) return {step.state(), {}, {}};
    auto const width = model_.shape().width;
    std::vector<T> x(tokens.size() * static_cast<std::size_t>(width));
    for (std::size_t i = 0; i < tokens.size(); ++i)
      model_.embed(tokens[i], row(x, static_cast<std::int64_t>(i), width));
    auto const before = states_;
    for (strata::layer_id l{0}; l.index < model_.shape().num_layers(); ++l.index)
      if (auto const s = layer(step, l, x); !s.ok()) return {s, {}, {}};
    step.keep_logits({model_.shape().num_layers() - 1}, x.data(), width);
    auto const rows = step.logit_rows();
    toy_output<T> output{{}, {rows.begin(), rows.end()}, std::move(x)};
    output.logits.resize(output.rows.size() * static_cast<std::size_t>(width));
    if (commit) output.state = step.commit();
    if (!commit) states_ = before;
    return output;
  }

  /// x: [input rows, width] in, [live rows, width] out.
  template <class Step>
  strata::status layer(Step& step, strata::layer_id l, std::vector<T>& x) {
    auto const width = model_.shape().width;
    auto const input = step.input_rows(l);
    if (!model_.kind(l).has_kv) {
      for (std::size_t i = 0; i < input.size(); ++i) {
        auto& state = states_[{l.index, sequence_of_[static_cast<std::size_t>(input[i])]}];
        state.resize(static_cast<std::size_t>(width));
        model_.recur(l, state.data(), row(x, static_cast<std::int64_t>(i), width));
      }
      return {};
    }
    store(step, l, x);
    step.keep_live(l, x.data(), width);
    return attend(step, l, x);
  }

  template <class Step>
  void store(Step& step, strata::layer_id l, std::vector<T>& x) {
    auto const width = model_.shape().width;
    auto const& kv = model_.kind(l).kv;
    auto const input = step.input_rows(l);
    std::vector<T> heads(static_cast<std::size_t>(kv.kv_heads * (kv.k_dim + kv.v_dim)));
    for (auto const& run : step.k_writers(l))
      for (std::int32_t i = 0; i < run.num_rows(); ++i) {
        auto const at = run.first_row() + i;
        auto const position =
            step.positions()[static_cast<std::size_t>(input[static_cast<std::size_t>(at)])];
        model_.k(l, position, row(x, at, width), heads.data());
        run.store(i, heads.data());
      }
    for (auto const& run : step.v_writers(l)) {
      auto const size = kv.kv_heads * kv.v_dim;
      std::vector<T> all(static_cast<std::size_t>(run.num_rows() * size));
      for (std::int32_t i = 0; i < run.num_rows(); ++i)
        model_.v(l, row(x, run.first_row() + i, width), row(all, i, size));
      run.store_all(all.data());
    }
  }

  template <class Step>
  strata::status attend(Step& step, strata::layer_id l, std::vector<T>& x) {
    auto const& shape = model_.shape();
    auto const& kv = model_.kind(l).kv;
    auto const positions = step.live_positions(l);
    auto const rows = static_cast<std::int64_t>(positions.size());
    auto const q_size = shape.q_heads * kv.k_dim, out_size = shape.q_heads * kv.v_dim;
    std::vector<T> q(static_cast<std::size_t>(rows * q_size));
    std::vector<T> out(static_cast<std::size_t>(rows * out_size), T(NAN));
    for (std::int64_t i = 0; i < rows; ++i)
      model_.q(l, positions[static_cast<std::size_t>(i)], row(x, i, shape.width),
               row(q, i, q_size));
    strata::layer_queries<T> const queries{q.data(), out.data(),       nullptr,      shape.q_heads,
                                           0,        strata::all_keys, model_.rule()};
    auto const bytes = step.workspace_bytes(l, queries, exec_.num_shares());
    if (!bytes.ok()) return bytes.state();
    if (auto const s = step.attend(exec_, l, queries, workspace_.get(*bytes)); !s.ok()) return s;
    for (std::int64_t i = 0; i < rows; ++i)
      model_.finish(l, row(out, i, out_size), row(x, i, shape.width));
    return {};
  }

  toy_model<T> const& model_;
  Stack& stack_;
  share_executor exec_;
  workspace_memory workspace_;
  std::vector<std::int32_t> sequence_of_;  // [batch rows]
  states states_;                          // by (layer, sequence)
};

/// Serves a sequence in chunks of the given sizes, the last one repeated; all logits, in order.
template <class T, class Stack>
std::vector<T> serve_in_chunks(toy_server<T, Stack>& server, strata::sequence_id id,
                               std::vector<std::int32_t> const& tokens,
                               std::vector<std::size_t> const& chunks) {
  std::vector<T> logits;
  std::size_t at = 0;
  for (std::size_t c = 0; at < tokens.size(); ++c) {
    auto const wanted = chunks[c < chunks.size() ? c : chunks.size() - 1];
    auto const end = at + wanted < tokens.size() ? at + wanted : tokens.size();
    auto const from = tokens.begin() + static_cast<std::ptrdiff_t>(at);
    auto const to = tokens.begin() + static_cast<std::ptrdiff_t>(end);
    auto const output = server.serve({{id, {from, to}}});
    if (!output.state.ok()) return {};
    logits.insert(logits.end(), output.logits.begin(), output.logits.end());
    at = end;
  }
  return logits;
}

}  // namespace support
