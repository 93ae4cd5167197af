// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Threads that strata does not own: an engine whose workers call every operation as (ith, nth) with
// a barrier of its own, as ggml's do, and OpenMP. Both are a few lines, and both give the bits that
// one thread gives.
#include <algorithm>
#include <barrier>
#include <thread>

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

  // The engine's own threads: partial, its barrier, combine. No executor at all.
  int const nth = 3;
  std::vector<std::byte> workspace(
      static_cast<std::size_t>(kernel.workspace_bytes(rows, view, nth)));
  std::barrier engine_barrier(nth);
  bool worked[nth] = {};
  auto const operation = [&](int ith) {
    strata::share const part{ith, nth};
    worked[ith] = kernel.partial(part, rows, view, workspace).ok();
    engine_barrier.arrive_and_wait();
    worked[ith] = worked[ith] && kernel.combine(part, rows, view, workspace).ok();
  };
  std::vector<std::thread> workers;
  for (int ith = 1; ith < nth; ++ith) workers.emplace_back(operation, ith);
  operation(0);
  for (auto& worker : workers) worker.join();
  bool good = worked[0] && worked[1] && worked[2];
  good &= equal("(ith, nth) threads of an engine", out, expected(k, v));

  openmp_executor openmp;
  workspace.resize(static_cast<std::size_t>(kernel.workspace_bytes(rows, view, openmp.shares)));
  std::fill(out.begin(), out.end(), 0.0f);
  good &= strata::attend(openmp, kernel, rows, view, workspace).ok();
  good &= equal(openmp_label, out, expected(k, v));
  return good ? 0 : 1;
}
