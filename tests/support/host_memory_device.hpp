// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Memory of a device that is the host's own, for what keeps copies there: where launches run on the
// host, and where all memory is both's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include <strata/status.hpp>

namespace support {

/// Launcher: what its launches go through.
template <class Launcher>
struct host_memory_device {
  struct memory {
    std::vector<std::byte> bytes;
    std::byte* data() const noexcept { return const_cast<std::byte*>(bytes.data()); }
    bool holds(void const* p) const noexcept {
      auto const* const at = static_cast<std::byte const*>(p);
      return at >= bytes.data() && at < bytes.data() + bytes.size();
    }
  };
  /// Where device memory lies, so that tests can look: the last two made are a mirror's.
  struct buffer : memory {
    static strata::result<buffer> make(host_memory_device const&, std::int64_t n) {
      buffer b;
      b.bytes.assign(static_cast<std::size_t>(n), std::byte{0xEE});
      return strata::result<buffer>(std::move(b));
    }
  };
  struct staging : memory {
    static strata::result<staging> make(host_memory_device const&, std::int64_t n) {
      staging s;
      s.bytes.assign(static_cast<std::size_t>(n), std::byte{0xDD});
      return strata::result<staging>(std::move(s));
    }
    strata::status mark(host_memory_device const&) const noexcept { return {}; }
    strata::status wait() const noexcept { return {}; }
  };

  strata::status copy(std::byte* to, void const* from, std::size_t n) const noexcept {
    if (n > 0) std::memcpy(to, from, n);
    return {};
  }
  Launcher launcher() const noexcept { return {}; }
};

}  // namespace support
