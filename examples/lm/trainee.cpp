// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "trainer.hpp"

template class lm::trainee<float, strata::any_sampler, strata::cpu::attention>;
