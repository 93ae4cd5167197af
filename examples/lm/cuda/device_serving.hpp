// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The door from the program to a device that serves: what is behind it is compiled by nvcc, where
// there is one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include <strata/plan.hpp>

#include "config.hpp"
#include "failure.hpp"
#include "parameters.hpp"
#include "server.hpp"
#include "serving.hpp"

namespace lm::cuda {

/// Codecs of the caches of devices: those that the matrix kernels of attention read.
constexpr bool serves(cache_codec codec) noexcept {
  return codec == cache_codec::bf16 || codec == cache_codec::int8 || codec == cache_codec::fp8;
}

/// Throws `wrong_use` with the codecs that there are.
inline void require_served(cache_codec codec) {
  if (!serves(codec))
    throw failure(std::string("a cache of ") + codec_name(codec) +
                      ": on a device it can be bf16, int8 or fp8",
                  exit_code::wrong_use);
}

/// A model on the current device, its weights in bf16. Outlives its servers; one thread at a time
/// uses it and them.
class served_model {
 public:
  virtual ~served_model() = default;
  virtual model_config const& config() const noexcept = 0;

  /// A server with a contiguous cache for sequences of this plan. Throws `wrong_use` for a codec
  /// that is not served, and `does_not_fit` with the bytes needed before it takes any.
  virtual std::unique_ptr<server<float>> make_server(strata::route_plan const& plan,
                                                     cache_options const& options,
                                                     step_room const& room = {}) = 0;
  /// Bytes of the device that such a server takes: K and V, tables, activations and workspace.
  virtual std::int64_t server_bytes(strata::route_plan const& plan, cache_options const& options,
                                    step_room const& room = {}) = 0;
};

/// Weights from the host, rounded to bf16. Throws `does_not_fit`, or `failed` without a device.
std::unique_ptr<served_model> upload(parameters<float> const& model);
/// Random weights, drawn on the device: for models that only their speed is asked of.
std::unique_ptr<served_model> fill_with_noise(model_config const& config, std::uint64_t seed);

}  // namespace lm::cuda
