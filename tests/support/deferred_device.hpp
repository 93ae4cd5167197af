// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A device in the host's memory that does everything as late as it may: copies and launches lie in
// a stream until somebody waits for them. Who overwrites what a copy is still to start from, or
// frees it, is found out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include <strata/status.hpp>

namespace support {

/// Work in order.
class deferred_stream {
 public:
  template <class Work>
  void add(Work const& work) {
    waiting_.push_back(work);
  }
  /// How much was added so far, ever.
  std::int64_t end() const { return done_ + static_cast<std::int64_t>(waiting_.size()); }
  std::size_t num_waiting() const { return waiting_.size(); }
  void finish_to(std::int64_t end) {
    for (; done_ < end; ++done_) {
      waiting_.front()();
      waiting_.pop_front();
    }
  }
  void finish() { finish_to(end()); }

 private:
  std::deque<std::function<void()>> waiting_;
  std::int64_t done_ = 0;
};

/// Launcher: what its launches go through, once their turn comes.
template <class Launcher>
struct deferred_device {
  std::shared_ptr<deferred_stream> stream = std::make_shared<deferred_stream>();

  struct memory {
    std::vector<std::byte> bytes;
    std::byte* data() const noexcept { return const_cast<std::byte*>(bytes.data()); }
  };
  struct buffer : memory {
    static strata::result<buffer> make(deferred_device const&, std::int64_t n) {
      buffer b;
      b.bytes.assign(static_cast<std::size_t>(n), std::byte{0xEE});
      return strata::result<buffer>(std::move(b));
    }
  };
  struct staging : memory {
    std::shared_ptr<deferred_stream> stream;  // null: nothing was marked
    std::int64_t marked = 0;

    static strata::result<staging> make(deferred_device const&, std::int64_t n) {
      staging s;
      s.bytes.assign(static_cast<std::size_t>(n), std::byte{0xDD});
      return strata::result<staging>(std::move(s));
    }
    strata::status mark(deferred_device const& device) noexcept {
      stream = device.stream;
      marked = stream->end();
      return {};
    }
    strata::status wait() noexcept {
      if (stream != nullptr) stream->finish_to(marked);
      return {};
    }
  };
  struct launcher_type {
    deferred_stream* stream = nullptr;
    template <class Body, class Args>
    strata::status start(std::int64_t blocks, std::int32_t shared_bytes,
                         Args const& args) const noexcept {
      stream->add([=] { (void)Launcher{}.template start<Body>(blocks, shared_bytes, args); });
      return {};
    }
  };

  strata::status copy(std::byte* to, void const* from, std::size_t n) const noexcept {
    if (n > 0) stream->add([=] { std::memcpy(to, from, n); });
    return {};
  }
  launcher_type launcher() const noexcept { return {stream.get()}; }
};

}  // namespace support
