// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The calls of a POSIX system that snapshot files need.
#pragma once

#if !__has_include(<unistd.h>)
#error "strata: snapshot files need POSIX: elsewhere give `save` a sink, and `restore` bytes"
#endif

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>

#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

/// What a file is.
struct file_kind {
  int error = 0;  // errno, or 0
  bool regular = false;
  std::int64_t bytes = 0;
};

/// The system's calls as they are, EINTR and short counts included: whoever calls deals with them.
/// Where it is not said otherwise they return 0, a count or a descriptor, or -errno. Tests have
/// their own, which fail.
struct posix_files {
  /// Readable and writable by the user alone: K and V tell what was said.
  static constexpr ::mode_t mode = 0600;

  int open_folder(char const* path) const noexcept {
    return outcome(::open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  /// A new file: fails with EEXIST where the folder has one of that name.
  int create(int folder, char const* name) const noexcept {
    return outcome(::openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
  }
  /// To be read. Does not wait, if it is a pipe, for somebody who writes.
  int open(char const* path) const noexcept {
    return outcome(::open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  }
  file_kind kind(int file) const noexcept {
    struct ::stat info = {};
    if (::fstat(file, &info) != 0) return {errno, false, 0};
    return {0, S_ISREG(info.st_mode), info.st_size};
  }
  std::int64_t write(int file, std::byte const* from, std::size_t bytes) const noexcept {
    return outcome(std::int64_t{::write(file, from, at_once(bytes))});
  }
  std::int64_t read(int file, std::byte* to, std::size_t bytes,
                    std::int64_t offset) const noexcept {
    return outcome(std::int64_t{::pread(file, to, at_once(bytes), ::off_t{offset})});
  }
  /// Until the disk has it.
  int sync(int file) const noexcept {
#if defined(F_FULLFSYNC)
    // There fsync stops at the drive, which may lose it.
    if (::fcntl(file, F_FULLFSYNC) == 0) return 0;
#endif
    return outcome(::fsync(file));
  }
  int close(int file) const noexcept { return outcome(::close(file)); }
  int rename(int folder, char const* from, char const* to) const noexcept {
    return outcome(::renameat(folder, from, folder, to));
  }
  int remove(int folder, char const* name) const noexcept {
    return outcome(::unlinkat(folder, name, 0));
  }
  /// To be read; null, with errno, where it cannot be.
  std::byte const* map(int file, std::size_t bytes) const noexcept {
    void* const at = ::mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, file, 0);
    return at == MAP_FAILED ? nullptr : static_cast<std::byte const*>(at);
  }
  static void unmap(std::byte const* at, std::size_t bytes) noexcept {
    static_cast<void>(::munmap(const_cast<std::byte*>(at), bytes));
  }
  /// Pages of a mapping that were read leave this process's memory, where the system can do that.
  static void forget(std::byte const* at, std::size_t bytes) noexcept {
#if defined(MADV_DONTNEED)
    static_cast<void>(::madvise(const_cast<std::byte*>(at), bytes, MADV_DONTNEED));
#endif
  }

 private:
  /// Some systems refuse more than 31 bits of bytes instead of doing a part of them.
  static std::size_t at_once(std::size_t bytes) noexcept {
    return (std::min)(bytes, std::size_t{1} << 30);
  }
  template <class T>
  static T outcome(T returned) noexcept {
    return returned < 0 ? -T{errno} : returned;
  }
};

/// Calls until a signal does not interrupt.
template <class Call>
auto uninterrupted(Call const& call) noexcept {
  auto outcome = call();
  while (outcome == -EINTR) outcome = call();
  return outcome;
}

}  // namespace detail

STRATA_NAMESPACE_END
