// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What the paper measured (arXiv:2604.22782, Tables 4 and 5: bf16, one GPU of 80 GB), and the same
// of a run of bench. Its figures are those of another program on another machine: bytes of K and V
// must agree, times need not, and of gains the roofline says what there is to be had.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "bench_report.hpp"

namespace lm {

/// A line of the paper's tables; 0 where it says nothing.
struct published_line {
  char const* shape;
  char const* strategy;
  std::int32_t context, batch, generated;
  double prompt_mib, all_mib;  ///< K/V of the prompts, and with the tokens generated
  double ttft_ms, tokens_per_s;
  double peak_gb;
  bool out_of_memory;
};

inline constexpr std::array<published_line, 4> published_lines = {{
    {"qwen3-8b", "full", 8192, 1, 128, 1152, 1170, 297, 34.0, 0, false},
    {"qwen3-8b", "every:4", 8192, 1, 128, 288, 293, 286, 41.6, 0, false},
    {"qwen3-8b", "full", 8192, 16, 63, 0, 0, 0, 0, 0, true},
    {"qwen3-8b", "every:4", 8192, 16, 63, 4608, 4643, 0, 0, 60.3, false},
}};

/// What the tables' axes are: prompts of 512 to 32K alone, and 8K in batches.
std::vector<bench_case> published_cases();

/// A figure of the paper, and what this run has instead: `here` 0 where it measured none.
struct comparison {
  std::string figure;
  char const* unit = "";
  double paper = 0;
  double here = 0;
  double predicted = 0;
};

/// All figures that the paper has of this shape; `tables` are those of published_cases().
std::vector<comparison> compare_with_paper(std::string const& shape, model_config const& config,
                                           std::vector<bench_table> const& tables);

std::string comparison_text(std::vector<comparison> const& figures);
json_value to_json(std::vector<comparison> const& figures);

}  // namespace lm
