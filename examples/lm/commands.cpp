// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "commands.hpp"

#include "checkpoint.hpp"
#include "shapes.hpp"

namespace lm {

model_config model_choice::config() const {
  return shape.empty() ? load_config(file) : find_shape(shape);
}

}  // namespace lm
