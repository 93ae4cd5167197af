// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A model in a file, and with it all that its training needs to go on as if never interrupted.
//
//     offset 0   8 bytes   "strataLM"
//            8   uint32    version, 1
//           12   uint32    CRC-32C of the header
//           16   uint64    length of the header, at most 16 MiB
//           24   header    JSON: "config", "tensors" (name, rows, cols, offset in elements),
//                          "sections" (name, offset, bytes, crc32c), "training"
//                sections  float32, little endian, each on a multiple of 64 bytes: "weights" and,
//                          where training can go on, "first_moment" and "second_moment", or of a
//                          run with adapters (whose rank is then "adapter_rank" of the header)
//                          "base", "adapters", "adapters_first" and "adapters_second"
//
// Writing is atomic and durable: a temporary file beside the old one, fsync, rename, fsync of the
// folder. Reading checks everything before it returns anything: a file that is truncated, longer
// than it says, damaged, of another version or not ours is refused with what is wrong.
#pragma once

#include <fcntl.h>

#include <bit>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <strata/checksum.hpp>

#include "adapter_table.hpp"
#include "config.hpp"
#include "config_json.hpp"
#include "failure.hpp"
#include "parameters.hpp"

namespace lm {

static_assert(std::endian::native == std::endian::little, "checkpoints are little endian");

/// What the optimizer remembers of each parameter.
struct moments {
  parameters<float> first, second;
};
/// The same, elsewhere, or what a run with adapters has instead; null for a model that is not to be
/// trained further.
struct moments_view {
  parameters<float> const* first = nullptr;
  parameters<float> const* second = nullptr;
  adapter_view adapters = {};
};

/// What a file holds. `training` is the trainer's business: its step and its arguments.
struct checkpoint {
  parameters<float> weights;
  std::optional<moments> optimizer;
  nlohmann::ordered_json training;
  std::optional<adapter_state> adapters = {};
};

/// Writes or replaces a file.
void save_checkpoint(std::string const& path, parameters<float> const& weights,
                     moments_view optimizer, nlohmann::ordered_json const& training);

/// Reads a file. `with_optimizer` false leaves the moments unread (their checksums too).
checkpoint load_checkpoint(std::string const& path, bool with_optimizer = true);

/// The shape of the model in a file, without its weights.
model_config load_config(std::string const& path);

/// What the file says of its training, without the weights; null where it says nothing.
nlohmann::ordered_json load_training(std::string const& path);

}  // namespace lm

#include "checkpoint_file.hpp"
