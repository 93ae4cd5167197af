// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "cuda/device_serving.hpp"

#include <utility>
#include <vector>

#include <cuda_runtime_api.h>

#include <strata/cache/contiguous_storage.hpp>
#include <strata/cuda/storage.cuh>

#include "cuda/device_rates.hpp"
#include "cuda/device_server.hpp"
#include "cuda/serving_machine.cuh"
#include "fit.hpp"

namespace lm::cuda {
namespace {

using machine_type = cuda_serving_machine<>;

/// Calls body with the library's codec: others are not compiled for devices.
template <class Body>
auto with_served_codec(cache_codec codec, Body const& body) {
  require_served(codec);
  if (codec == cache_codec::int8) return body(strata::int8_codec{});
  if (codec == cache_codec::fp8) return body(strata::fp8_codec{});
  return body(strata::bf16_codec{});
}

template <class Codec>
using device_cache = strata::cuda::device_storage<strata::contiguous_storage<Codec>>;

class owned_model final : public served_model {
 public:
  explicit owned_model(model_config const& config)
      : config_(fitting(config)), weights_(machine_, config) {}

  void upload(parameters<float> const& model) {
    std::vector<bfloat16> rounded;
    rounded.reserve(model.values().size());
    for (auto const w : model.values()) rounded.push_back(strata::to_bfloat16(w));
    machine_.upload(std::span<bfloat16 const>(rounded), weights_.data());
    machine_.wait();
  }
  void fill_with_noise(std::uint64_t seed) {
    weights_.fill_with_noise(machine_, seed);
    machine_.wait();
  }

  model_config const& config() const noexcept override { return config_; }

  std::int64_t server_bytes(strata::route_plan const& plan, cache_options const& options,
                            step_room const& room) override {
    auto const beside = with_served_codec(options.codec, [&]<class Codec>(Codec) {
      return device_server<machine_type, device_cache<Codec>>::bytes(
          machine_, config_, options.max_sequences, options.max_tokens, room);
    });
    return lm::server_bytes(cache_bytes(plan, config_, options), beside);
  }

  std::unique_ptr<server<float>> make_server(strata::route_plan const& plan,
                                             cache_options const& options,
                                             step_room const& room) override {
    require_fit(server_bytes(plan, options, room), free_memory(), "serving", "the device");
    return with_served_codec(
        options.codec, [&]<class Codec>(Codec) { return make_with<Codec>(plan, options, room); });
  }

 private:
  template <class Codec>
  std::unique_ptr<server<float>> make_with(strata::route_plan const& plan,
                                           cache_options const& options, step_room const& room) {
    auto made = device_cache<Codec>::make(
        machine_.stream().get(), config_.classes(),
        strata::contiguous_options::for_plan(plan, options.max_sequences, options.max_tokens));
    lm::require(made.state(), "the K/V cache");
    return std::make_unique<device_server<machine_type, device_cache<Codec>>>(
        machine_, weights_, config_, std::move(*made), room);
  }

  static model_config const& fitting(model_config const& config) {
    auto const bytes = make_tensor_table(config).size * std::int64_t{sizeof(bfloat16)};
    require_fit(bytes, free_memory(), "the weights", "the device");
    return config;
  }

  model_config config_;
  machine_type machine_;
  device_weights<machine_type> weights_;
};

}  // namespace

std::unique_ptr<served_model> upload(parameters<float> const& model) {
  auto made = std::make_unique<owned_model>(model.config());
  made->upload(model);
  return made;
}

std::unique_ptr<served_model> fill_with_noise(model_config const& config, std::uint64_t seed) {
  auto made = std::make_unique<owned_model>(config);
  made->fill_with_noise(seed);
  return made;
}

}  // namespace lm::cuda
