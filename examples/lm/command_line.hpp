// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

namespace lm {

/// Runs strata-lm as the arguments say and returns its exit code. All errors end here.
int run_command_line(int argc, char const* const* argv);

}  // namespace lm
