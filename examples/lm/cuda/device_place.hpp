// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The current device as a place where a model serves.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "cuda/device_rates.hpp"
#include "cuda/device_run.hpp"
#include "cuda/device_serving.hpp"
#include "serving_place.hpp"

namespace lm::cuda {

/// A model in a device's memory, and what of that memory was free before the model came.
class device_place final : public serving_place {
 public:
  device_place(std::unique_ptr<served_model> model, std::int64_t free_before)
      : model_(std::move(model)), free_before_(free_before) {}

  device_kind device() const noexcept override { return device_kind::cuda; }
  model_config const& config() const noexcept override { return model_->config(); }
  std::unique_ptr<server<float>> make_server(strata::route_plan const& plan,
                                             cache_options const& options,
                                             step_room const& room) override {
    return model_->make_server(plan, options, room);
  }
  std::int64_t server_bytes(strata::route_plan const& plan, cache_options const& options,
                            step_room const& room) const override {
    return model_->server_bytes(plan, options, room);
  }
  /// A whole prompt in one step, if it is no longer: each step reads all weights.
  std::int32_t prefill_rows() const noexcept override { return 8192; }
  std::int64_t available_memory() const override { return free_memory(); }
  char const* name() const noexcept override { return "the device"; }
  /// All that the device says is taken since the model came: of other programs, too.
  std::int64_t used_memory(server<float> const&) const override {
    return std::max<std::int64_t>(free_before_ - free_memory(), 0);
  }
  // Once each: they take gigabytes for a moment, and nobody else slows the device down.
  double read_rate() override {
    if (read_rate_ == 0) read_rate_ = cuda::read_rate();
    return read_rate_;
  }
  double product_rate(std::int32_t) override {
    if (product_rate_ == 0) product_rate_ = cuda::product_rate();
    return product_rate_;
  }
  std::string machine() const override { return device_text(); }
  std::string kernels() const override {
    return "attention: cuda::attention; products: cuBLASLt, bf16";
  }
  std::int32_t threads() const noexcept override { return 0; }

 private:
  std::unique_ptr<served_model> model_;
  std::int64_t free_before_;
  double read_rate_ = 0, product_rate_ = 0;
};

/// Throws where there is no device, or too little of its memory. The weights are rounded to bf16.
inline std::unique_ptr<serving_place> place_model(parameters<float> const& model) {
  static_cast<void>(device_text());  // where there is no device, this says so
  auto const before = free_memory();
  return std::make_unique<device_place>(upload(model), before);
}

/// The same of random weights, which are made there: the processor's memory holds none of them.
inline std::unique_ptr<serving_place> place_shape(model_config const& config) {
  static_cast<void>(device_text());  // where there is no device, this says so
  auto const before = free_memory();
  return std::make_unique<device_place>(fill_with_noise(config, 1), before);
}

}  // namespace lm::cuda
