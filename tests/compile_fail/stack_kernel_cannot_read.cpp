// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// expect: strata: the stack's kernel cannot read the storage's codecs with queries of T
#include <strata/strata.hpp>

using storage = strata::contiguous_storage<strata::f32_codec>;

#ifdef STRATA_SHOULD_FAIL
using kernel = strata::serial_executor;  // runs kernels, and is none
#else
using kernel = strata::reference_attention;
#endif

strata::status attend(strata::step<storage, kernel>& step, strata::layer_queries<float> const& q) {
  strata::serial_executor exec;
  return step.attend(exec, {0}, q);
}
