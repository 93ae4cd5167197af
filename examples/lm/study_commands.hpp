// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

namespace CLI {
class App;
}

namespace lm {

/// bits, shrink and sensitivity.
void add_study_commands(CLI::App& program);

}  // namespace lm
