// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "cuda/device_run.hpp"

#include <cuda_runtime_api.h>

#include <utility>

#include "cuda/device_rates.hpp"
#include "cuda/device_trainer.hpp"
#include "cuda/library_attention.cuh"
#include "cuda/training_machine.cuh"
#include "fit.hpp"
#include "units.hpp"

namespace lm::cuda {
namespace {

using attention = library_attention<>;
using machine_type = cuda_training_machine<attention>;
using trainer_type = device_trainer<machine_type>;

/// A machine and the run on it, which goes first.
struct machine_owner {
  machine_type machine;
};
class owned_run final : private machine_owner, public trainer_type {
 public:
  owned_run(training_options const& options, data_pointer data)
      : trainer_type(options, std::move(data), machine_owner::machine) {}
  using trainer_type::continue_from;
  using trainer_type::saved_options;
};

void require_room(training_options const& options) {
  require_fit(trainer_type::bytes(options), free_memory(), "training", "the device");
}

}  // namespace

std::unique_ptr<training_run> make_run(training_options const& options,
                                       std::shared_ptr<training_data const> data,
                                       checkpoint const* saved) {
  if (!attention::trains)
    throw failure("--device cuda: attention has no backward call for devices in this build");
  auto const& o = saved != nullptr ? owned_run::saved_options(*saved, *data) : options;
  require_room(o);
  auto run = std::make_unique<owned_run>(o, std::move(data));
  if (saved != nullptr) run->continue_from(*saved);
  return run;
}

std::string device_text() {
  int device = 0;
  check(cudaGetDevice(&device), "a device");
  cudaDeviceProp properties = {};
  check(cudaGetDeviceProperties(&properties, device), "a device");
  return std::string(properties.name) + ", " +
         bytes_text(static_cast<std::int64_t>(properties.totalGlobalMem));
}

}  // namespace lm::cuda
