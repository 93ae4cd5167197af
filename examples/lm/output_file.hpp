// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Files that are read and written as a whole; those that replace what was there do so durably. And
// whether they will be able to: who waits an hour for a report learns at the start that its folder
// does not exist.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>
#include <utility>

#include "failure.hpp"

namespace lm {

namespace detail {

/// An open file that knows its name, for the errors.
class file {
 public:
  file(std::string path, int flags)
      : path_(std::move(path)), fd_(::open(path_.c_str(), flags, 0666)) {
    if (fd_ < 0) fail();
  }
  ~file() {
    if (fd_ >= 0) ::close(fd_);
  }
  file(file const&) = delete;
  file& operator=(file const&) = delete;

  [[noreturn]] void fail() const { throw failure(path_ + ": " + std::strerror(errno)); }
  [[noreturn]] void refuse(std::string const& why) const { throw failure(path_ + ": " + why); }

  std::int64_t size() const {
    struct stat info = {};
    if (fstat(fd_, &info) != 0) fail();
    if (!S_ISREG(info.st_mode)) refuse("is no regular file");
    return info.st_size;
  }
  void read(std::int64_t offset, void* to, std::int64_t count) const {
    for (auto* at = static_cast<char*>(to); count > 0;) {
      auto const done = pread(fd_, at, static_cast<std::size_t>(count), offset);
      if (done < 0 && errno == EINTR) continue;
      if (done < 0) fail();
      if (done == 0) refuse("became shorter while it was read");
      at += done, offset += done, count -= done;
    }
  }
  void write(void const* from, std::int64_t count) const {
    for (auto const* at = static_cast<char const*>(from); count > 0;) {
      auto const done = ::write(fd_, at, static_cast<std::size_t>(count));
      if (done < 0 && errno == EINTR) continue;
      if (done < 0) fail();
      at += done, count -= done;
    }
  }
  void sync() const {
    if (fsync(fd_) != 0) fail();
  }
  void close() {
    auto const outcome = ::close(std::exchange(fd_, -1));
    if (outcome != 0) fail();
  }

 private:
  std::string path_;
  int fd_;
};

inline std::string folder_of(std::string const& path) {
  auto const slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

/// Calls write(file) on a new file and puts that in the place of `path`. Whatever fails, `path` is
/// what it was and no other file is left.
template <class Write>
void replace_file(std::string const& path, Write const& write) {
  auto const temporary = path + ".new." + std::to_string(getpid());
  try {
    file out(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC);
    write(out);
    out.sync();
    out.close();
    if (std::rename(temporary.c_str(), path.c_str()) != 0)
      throw failure(path + ": " + std::strerror(errno));
  } catch (...) {
    unlink(temporary.c_str());
    throw;
  }
  file(folder_of(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC).sync();
}

}  // namespace detail

/// Throws, with the argument's name, where `path` could not be written: makes an empty file beside
/// it, as writing it would, and takes it away again. An empty path is nothing to be written.
inline void require_writable(std::string const& argument, std::string const& path) {
  if (path.empty()) return;
  std::error_code unknown;
  if (std::filesystem::is_directory(path, unknown))
    throw failure(argument + " " + path + ": is a folder");
  auto const probe = path + ".probe." + std::to_string(getpid());
  auto const descriptor = open(probe.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor < 0) throw failure(argument + " " + path + ": " + std::strerror(errno));
  close(descriptor);
  unlink(probe.c_str());
}

/// A text as a whole file.
inline void write_text(std::string const& path, std::string const& content) {
  detail::replace_file(path, [&](detail::file const& out) {
    out.write(content.data(), static_cast<std::int64_t>(content.size()));
  });
}

}  // namespace lm
