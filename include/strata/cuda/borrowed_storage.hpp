// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// An engine's own cache on a device.
#pragma once

#include <utility>

#include <strata/cache/storage.hpp>
#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda {

/// borrowed_storage, or a storage of one's own, whose memory and block tables are a device's:
/// kernels are given their pointers as they are. Runs of its steps refuse the host's `store`. The
/// engine's tables must have, on the device, a block for every token before what is launched for
/// the step that adds it.
template <cache_storage Storage>
class borrowed_device_storage : public Storage {
 public:
  static constexpr bool on_device = true;
  explicit borrowed_device_storage(Storage books) noexcept : Storage(std::move(books)) {}
};

}  // namespace cuda

STRATA_NAMESPACE_END
