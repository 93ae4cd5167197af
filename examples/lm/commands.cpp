// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "commands.hpp"

#include "formats/open_model.hpp"
#include "shapes.hpp"

namespace lm {

model_config model_choice::config() const {
  return shape.empty() ? load_model_config(file) : find_shape(shape);
}

}  // namespace lm
