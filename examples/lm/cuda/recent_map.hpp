// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>

namespace lm::cuda {

/// What was made for the keys asked for last, `most` of them, which is at least 1: the one whose
/// last use is longest ago makes room for a new one. Making it costs more than looking through all.
template <class Key, class Value>
class recent_map {
 public:
  explicit recent_map(std::size_t most) : most_(most) {}

  /// The value of a key, from make() where there is none. It stays until the next call.
  template <class Make>
  Value const& find(Key const& key, Make const& make) {
    ++uses_;
    auto at = entries_.find(key);
    if (at == entries_.end()) {
      entry made{make(), 0};  // throws, perhaps: before any goes
      if (entries_.size() >= most_) entries_.erase(oldest());
      at = entries_.try_emplace(key, std::move(made)).first;
    }
    at->second.used = uses_;
    return at->second.value;
  }

  std::size_t size() const noexcept { return entries_.size(); }

 private:
  struct entry {
    Value value;
    std::uint64_t used;
  };

  auto oldest() {
    return std::min_element(entries_.begin(), entries_.end(), [](auto const& a, auto const& b) {
      return a.second.used < b.second.used;
    });
  }

  std::size_t most_;
  std::uint64_t uses_ = 0;
  std::map<Key, entry> entries_;
};

}  // namespace lm::cuda
