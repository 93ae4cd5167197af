// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What bench prints and writes down: a table for each context and batch, full first.
#pragma once

#include <string>
#include <vector>

#include "bench_row.hpp"
#include "report.hpp"

namespace lm {

struct bench_table {
  bench_case about;
  std::vector<bench_row> rows;  ///< full first
};

/// The table, and below it why lines of it did not run.
std::string table_text(bench_table const& table, bool with_prompts);

/// What the columns mean, once for all tables.
std::string columns_text(bool with_prompts);

json_value to_json(bench_table const& table, bool with_prompts);

}  // namespace lm
