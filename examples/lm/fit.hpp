// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// How much memory there is, and what must fit into it.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>

#include "failure.hpp"
#include "units.hpp"

namespace lm {

/// Bytes that programs can still take without swapping: MemAvailable, or the control group's limit
/// where that is tighter. 2^62 where neither can be read.
inline std::int64_t available_memory() {
  std::int64_t available = std::int64_t{1} << 62;
  std::ifstream info("/proc/meminfo");
  for (std::string word; info >> word;)
    if (std::int64_t kib = 0; word == "MemAvailable:" && info >> kib) available = kib * 1024;
  std::int64_t limit = 0, used = 0;
  std::ifstream limit_file("/sys/fs/cgroup/memory.max"), used_file("/sys/fs/cgroup/memory.current");
  bool const limited = limit_file >> limit && used_file >> used;
  if (limited && limit - used < available) available = limit - used;
  return available;
}

/// Throws does_not_fit unless `needed` bytes of `what` fit into `room` bytes of `where`.
inline void require_fit(std::int64_t needed, std::int64_t room, std::string const& what,
                        std::string const& where) {
  if (needed <= room) return;
  throw failure(what + ": " + count_text(needed) + " bytes (" + bytes_text(needed) +
                    ") are needed; " + where + " has " + count_text(room) + " (" +
                    bytes_text(room) + ")",
                exit_code::does_not_fit);
}

}  // namespace lm
