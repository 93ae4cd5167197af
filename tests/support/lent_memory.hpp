// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Memory of the host that a paged storage takes for a device's.
#pragma once

#include <cstddef>
#include <span>

#include <strata/cache/paged_storage.hpp>
#include <strata/geometry.hpp>

#include "share_executor.hpp"

namespace support {

/// Of one storage, which copies no block itself and goes before its memory does.
template <class Storage>
class lent_memory {
 public:
  lent_memory(strata::kv_classes const& classes, strata::paged_options const& options)
      : classes_(classes), options_(options) {
    auto const bytes = Storage::memory_bytes(classes, options).value();
    k = k_.get(bytes.k);
    v = v_.get(bytes.v);
  }
  lent_memory(lent_memory const&) = delete;
  lent_memory& operator=(lent_memory const&) = delete;

  Storage make() const { return Storage::make(classes_, options_, {k, v, true}).value(); }

  std::span<std::byte> k, v;

 private:
  strata::kv_classes classes_;
  strata::paged_options options_;
  workspace_memory k_, v_;
};

}  // namespace support
