// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A file whose bytes come from the disk as they are looked at. It must not be changed meanwhile:
// who looks beyond the end of a file that became shorter gets SIGBUS.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>

#include <strata/detail/posix_files.hpp>

#include "../failure.hpp"

namespace lm {

/// To be read only. Moves, and the bytes stay where they are.
class mapped_file {
 public:
  /// No file, no bytes.
  mapped_file() = default;

  /// Throws, with the path and what the system says, where it cannot be read or is no regular file.
  explicit mapped_file(std::string const& path) {
    strata::detail::posix_files const files;
    auto const file = strata::detail::uninterrupted([&] { return files.open(path.c_str()); });
    if (file < 0) throw failure(path + ": " + std::strerror(-file));
    auto const kind = files.kind(file);
    auto error = kind.error;
    if (error == 0 && kind.regular && kind.bytes > 0) {
      size_ = static_cast<std::size_t>(kind.bytes);
      data_ = files.map(file, size_);
      if (data_ == nullptr) error = errno;
    }
    static_cast<void>(files.close(file));  // a mapping needs none
    if (error != 0) throw failure(path + ": " + std::strerror(error));
    if (!kind.regular) throw failure(path + ": is no regular file");
  }

  mapped_file(mapped_file&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  mapped_file& operator=(mapped_file&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~mapped_file() {
    if (data_ != nullptr) strata::detail::posix_files::unmap(data_, size_);
  }

  /// Takes its pages out of this process's memory; who looks at them again gets them from the
  /// system's, where they stay as long as there is room.
  void forget() const noexcept {
    if (data_ != nullptr) strata::detail::posix_files::forget(data_, size_);
  }

  /// Aligned to a page.
  std::span<std::byte const> bytes() const noexcept { return {data_, size_}; }

 private:
  std::byte const* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace lm
