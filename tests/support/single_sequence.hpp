// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// One sequence of a batch in a call of its own.
#pragma once

#include <doctest/doctest.h>

#include <cstdint>

#include "attention_cases.hpp"
#include "print.hpp"

namespace support {

/// The view of sequence s alone.
template <class View>
View only(View view, std::int32_t s) {
  for (auto* tensor : {&view.k, &view.v}) {
    if (tensor->row_of != nullptr)
      tensor->row_of += s * (tensor->row_per_head ? view.kv_heads : 1);
    else
      tensor->block_table += s * tensor->blocks_per_row;
  }
  view.rows.lengths += s * (view.rows.length_per_head ? view.kv_heads : 1);
  if (view.rows.positions != nullptr) view.rows.positions += s * view.rows.position_seq_stride;
  view.rows.num_seqs = 1;
  return view;
}

/// Forward and backward of sequence s, into where the whole batch would have written it.
template <class Kernel, class Problem>
void run_alone(Kernel const& kernel, attention_call<float>& call, Problem& problem,
               std::int32_t s) {
  auto const& c = problem.shape();
  auto const view = only(problem.view(), s);
  auto const first = std::int64_t{call.rows.row_begin(s)}, at = first * c.q_heads;
  auto rows = call.rows;
  rows.offsets = nullptr;
  rows.rows_per_seq = call.rows.row_end(s) - call.rows.row_begin(s);
  rows.num_seqs = 1;
  rows.q += at * c.k_dim;
  rows.out += at * c.v_dim;
  rows.lse += at;
  if (rows.positions != nullptr) rows.positions += first;
  auto grad = call.grad;
  grad.dk += s * grad.dk_stride.seq;
  grad.dv += s * grad.dv_stride.seq;
  share_executor const exec;
  workspace_memory memory;
  REQUIRE(
      strata::attend(exec, kernel, rows, view, memory.get(kernel.workspace_bytes(rows, view, 1)))
          .ok());
  REQUIRE(strata::attend_backward(exec, kernel, rows, view,
                                  static_cast<float const*>(call.d_out.data() + at * c.v_dim),
                                  call.d_q.data() + at * c.k_dim, grad,
                                  memory.get(kernel.backward_workspace_bytes(rows, view, 1)))
              .ok());
}

}  // namespace support
