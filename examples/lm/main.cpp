// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// strata-lm: a small language model that trains with stochastic KV routing and serves with a K/V
// cache shared across depth.
#include "command_line.hpp"

int main(int argc, char** argv) { return lm::run_command_line(argc, argv); }
