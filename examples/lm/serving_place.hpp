// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Where a model serves: its weights, in the numbers of that place, and what computes with them. The
// commands that serve know no other door, so that they are the same on a processor and on a device.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <strata/plan.hpp>
#include <strata/thread_pool.hpp>

#include "device.hpp"
#include "parameters.hpp"
#include "read_rate.hpp"
#include "served_model.hpp"
#include "server.hpp"
#include "serving.hpp"
#include "weight_type.hpp"

namespace lm {

/// The weights asked for or, where nobody asked, those of a place: bf16 on a device. On the
/// processor bf16 where all matrices of `file` are, so that nothing is lost, else f32; a shape has
/// no file. Throws `wrong_use` where a device would have to keep floats.
weight_type choose_weights(std::optional<weight_type> asked, device_kind device,
                           std::string const& file);

/// Bytes of all weights, as such a place keeps them.
std::int64_t weight_bytes(model_config const& config, device_kind device, weight_type type);

/// What computes on the processor: the library's kernel, its instruction set, and the BLAS.
std::string kernels_text();

/// The codec asked for or, where none was, bf16 on a device and `on_cpu` here. Throws `wrong_use`,
/// with the codecs that there are, where the place has no such servers.
cache_codec choose_codec(std::optional<cache_codec> asked, device_kind device, cache_codec on_cpu);

/// A model where it serves. Servers, and whatever they are asked, must not outlive it.
class serving_place {
 public:
  virtual ~serving_place() = default;

  virtual device_kind device() const noexcept = 0;
  virtual model_config const& config() const noexcept = 0;

  /// As lm::make_server: what does not fit is refused before anything is allocated. `room` is what
  /// steps will bring at most.
  virtual std::unique_ptr<server<float>> make_server(strata::route_plan const& plan,
                                                     cache_options const& options,
                                                     step_room const& room) = 0;
  /// Bytes that such a server takes, as far as they are known before it runs.
  virtual std::int64_t server_bytes(strata::route_plan const& plan, cache_options const& options,
                                    step_room const& room) const = 0;

  /// Rows of a prefill step that are enough for the products to be as fast as they get.
  virtual std::int32_t prefill_rows() const noexcept = 0;

  /// Bytes that are free here now, and how people call the place that has them.
  virtual std::int64_t available_memory() const = 0;
  virtual char const* name() const noexcept = 0;

  /// Bytes that weights, K and V and activations take together by now; what never shrinks, so that
  /// asking at the end gives the peak.
  virtual std::int64_t used_memory(server<float> const& serving) const = 0;

  /// Bytes per second that are read from memory here, measured now.
  virtual double read_rate() = 0;
  /// Floating-point operations per second (a multiply-add counts two) of a product of `rows` rows of
  /// activations with the model's widest weight of a layer, measured now.
  virtual double product_rate(std::int32_t rows) = 0;

  /// What computes: the processor or the device, and the kernels.
  virtual std::string machine() const = 0;
  virtual std::string kernels() const = 0;
  /// Threads of the processor that compute, 0 where a device does.
  virtual std::int32_t threads() const noexcept = 0;
};

/// A model of this process's memory and threads that serve it; both must outlive it.
class cpu_place : public serving_place {
 public:
  cpu_place(served_model<float> model, strata::thread_pool& pool)
      : model_(std::move(model)), pool_(pool) {}

  device_kind device() const noexcept override { return device_kind::cpu; }
  model_config const& config() const noexcept override { return model_.config; }
  std::unique_ptr<server<float>> make_server(strata::route_plan const& plan,
                                             cache_options const& options,
                                             step_room const&) override;
  std::int64_t server_bytes(strata::route_plan const& plan, cache_options const& options,
                            step_room const&) const override;
  std::int32_t prefill_rows() const noexcept override { return prefill_chunk; }
  std::int64_t available_memory() const override;
  char const* name() const noexcept override { return "this machine"; }
  std::int64_t used_memory(server<float> const& serving) const override;
  double read_rate() override;
  double product_rate(std::int32_t rows) override;
  std::string machine() const override;
  std::string kernels() const override;
  std::int32_t threads() const noexcept override { return pool_.num_shares(); }

 private:
  served_model<float> model_;
  strata::thread_pool& pool_;
  std::optional<read_probe> probe_;  // made when somebody first asks
};

/// Where a command was told to serve.
struct place_options {
  device_kind device = device_kind::cpu;
  std::int32_t threads = 0;                 ///< of the processor; 0: as many as the machine has
  std::optional<weight_type> weights = {};  ///< as choose_weights takes them
  std::string adapters = {};                ///< a folder of them, or none
};

/// A trained model from a file. Throws.
std::unique_ptr<serving_place> open_model(std::string const& file, place_options const& where);

/// A model of random weights. Throws `does_not_fit` where they do not, before any is made.
std::unique_ptr<serving_place> open_shape(model_config const& config, std::string const& name,
                                          place_options const& where);

}  // namespace lm
