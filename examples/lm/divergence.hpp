// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// How far one server's predictions lie from another's: the Kullback-Leibler divergence of the
// distributions of the next token.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace lm {

/// log sum exp(logits), in double: divergences of 16-bit caches are 1e-6 of what is subtracted.
template <class T>
double log_total(T const* logits, std::int64_t vocab) {
  auto const top = static_cast<double>(*std::max_element(logits, logits + vocab));
  double sum = 0;
  for (std::int64_t i = 0; i < vocab; ++i) sum += std::exp(static_cast<double>(logits[i]) - top);
  return top + std::log(sum);
}

/// Nats that somebody loses who takes q for p: sum of p (log p - log q), where p and q are the
/// softmax of logits, [vocab] each, whose log_total is given.
template <class T>
double divergence(T const* p, double p_total, T const* q, double q_total, std::int64_t vocab) {
  double sum = 0;
  for (std::int64_t i = 0; i < vocab; ++i) {
    auto const log_p = static_cast<double>(p[i]) - p_total;
    sum += std::exp(log_p) * (log_p - (static_cast<double>(q[i]) - q_total));
  }
  return sum;
}

/// Rows of logits that others are compared with.
template <class T>
class reference_rows {
 public:
  explicit reference_rows(std::int64_t vocab) : vocab_(vocab) {}

  void clear() {
    logits_.clear();
    totals_.clear();
  }
  /// row: [vocab]
  void add(T const* row, double total) {
    logits_.insert(logits_.end(), row, row + vocab_);
    totals_.push_back(total);
  }
  std::size_t size() const { return totals_.size(); }

  /// From its row i, the distribution that is taken for true, to another.
  double divergence_to(std::size_t i, T const* row, double total) const {
    return divergence(logits_.data() + static_cast<std::int64_t>(i) * vocab_, totals_[i], row,
                      total, vocab_);
  }

 private:
  std::int64_t vocab_;
  std::vector<T> logits_;       // [rows, vocab]
  std::vector<double> totals_;  // [rows]
};

}  // namespace lm
