// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "attention_call.cuh"

template <>
std::unique_ptr<bench::device_call> bench::make_forward<strata::bf16_codec>(attention_case const& c,
                                                                            cudaStream_t stream,
                                                                            std::int64_t l2_bytes) {
  return forward_of<strata::bf16_codec>(c, stream, l2_bytes);
}
