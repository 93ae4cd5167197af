// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Threads that strata does not own, behind its concept of an executor: OpenMP, in a few lines, with
// the bits that one thread gives. An engine whose threads enter an operation together needs none:
// engine_threads.cpp.
#include "compare.hpp"

namespace {

using namespace engines;

#ifdef _OPENMP
constexpr auto openmp_label = "OpenMP";
#else
constexpr auto openmp_label = "OpenMP's adapter without OpenMP, in one thread";
#endif

/// OpenMP as an executor. Without -fopenmp one thread does all shares.
struct openmp_executor {
  std::int32_t shares = 4;
  std::int32_t num_shares() const noexcept { return shares; }
  template <class Body>
  strata::status run(Body&& body) const noexcept {
    std::vector<strata::status> outcomes(static_cast<std::size_t>(shares));
#ifdef _OPENMP
#pragma omp parallel for num_threads(shares)
#endif
    for (std::int32_t i = 0; i < shares; ++i)
      outcomes[static_cast<std::size_t>(i)] = body(strata::share{i, shares});
    for (auto const& outcome : outcomes)
      if (!outcome.ok()) return outcome;
    return {};
  }
};
static_assert(strata::executor<openmp_executor>);

}  // namespace

int main() {
  plain_tensor const k(1), v(2);
  auto view = strata::contiguous_view(k.data.data(), v.data.data(), num_seqs, max_length, kv_heads,
                                      head_dim, head_dim);
  view.rows.lengths = length;
  auto const q = random_tensor(num_seqs * q_heads * head_dim, 99);
  std::vector<float> out(q.size());
  strata::query_rows<float> rows;
  rows.q = q.data();
  rows.out = out.data();
  rows.num_seqs = num_seqs;
  rows.q_heads = q_heads;
  strata::reference_attention const kernel;

  openmp_executor openmp;
  std::vector<std::byte> workspace(
      static_cast<std::size_t>(kernel.workspace_bytes(rows, view, openmp.shares)));
  if (!strata::attend(openmp, kernel, rows, view, workspace).ok()) return 1;
  return equal(openmp_label, out, expected(k, v)) ? 0 : 1;
}
