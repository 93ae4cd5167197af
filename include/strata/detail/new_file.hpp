// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A file that is not there before it is whole.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include <strata/config.hpp>
#include <strata/detail/posix_files.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

/// A path as its folder and its name there, each for the system's calls.
struct split_path {
  char folder[4096] = {};
  char name[256] = {};

  status split(char const* path) noexcept {
    if (path == nullptr) return {errc::cannot_open_file, no_layer, EFAULT, 0};
    std::string_view const whole(path);
    auto const slash = whole.rfind('/');
    bool const here = slash == std::string_view::npos;
    auto const before = here ? std::string_view(".") : whole.substr(0, slash == 0 ? 1 : slash);
    auto const last = here ? whole : whole.substr(slash + 1);
    if (last.empty() || last == "." || last == "..") return {errc::no_regular_file};
    if (before.size() >= sizeof(folder) || last.size() >= sizeof(name))
      return {errc::cannot_open_file, no_layer, ENAMETOOLONG, 0};
    std::memcpy(folder, before.data(), before.size());
    std::memcpy(name, last.data(), last.size());
    return {};
  }
};

/// A name beside another: its beginning, the process and a number, so that all fits.
struct temporary_name {
  char text[256] = {};

  temporary_name() noexcept = default;
  temporary_name(std::string_view of, std::int32_t number) noexcept {
    char* const end = text + sizeof(text) - 1;
    char* at = append_text(text, end, of.substr(0, 200));
    at = append_text(at, end, ".new.");
    at = append_number(at, end, std::int64_t{::getpid()});
    at = append_text(at, end, ".");
    append_number(at, end, number);
  }
};

/// Written under a temporary name in the folder of the path, and then put in its place. Where it does
/// not come to that the temporary file is removed, and the path is what it was.
template <class Files>
class new_file {
 public:
  explicit new_file(Files files) noexcept : files_(files) {}
  new_file(new_file const&) = delete;
  new_file& operator=(new_file const&) = delete;
  ~new_file() {
    if (file_ >= 0) static_cast<void>(files_.close(file_));
    if (temporary_.text[0] != 0) static_cast<void>(files_.remove(folder_, temporary_.text));
    if (folder_ >= 0) static_cast<void>(files_.close(folder_));
  }

  status open(char const* path) noexcept {
    if (auto const s = path_.split(path); !s.ok()) return s;
    // Before all else: what will be synchronised, and what names mean even if it is moved.
    folder_ = uninterrupted([&] { return files_.open_folder(path_.folder); });
    if (folder_ < 0) return failed(errc::cannot_open_file, folder_);
    // Others may write to the same path, and who crashed may have left a file.
    for (std::int32_t number = 0; number < most_others; ++number) {
      temporary_name const name(path_.name, number);
      file_ = uninterrupted([&] { return files_.create(folder_, name.text); });
      if (file_ >= 0) temporary_ = name;
      if (file_ != -EEXIST) break;
    }
    return file_ < 0 ? failed(errc::cannot_open_file, file_) : status{};
  }

  /// Gathers what comes in pieces of a few bytes; what is long is written from where it lies.
  status write(std::span<std::byte const> bytes) noexcept {
    if (bytes.size() > sizeof(buffer_) - used_)
      if (auto const s = flush(); !s.ok()) return s;
    if (bytes.size() >= sizeof(buffer_)) return write_through(bytes);
    if (!bytes.empty()) std::memcpy(buffer_ + used_, bytes.data(), bytes.size());
    used_ += bytes.size();
    return {};
  }

  /// Makes the file durable, puts it in its place and makes that durable.
  status put_in_place() noexcept {
    if (auto const s = flush(); !s.ok()) return s;
    // A disk that refused once may say yes the second time and have lost the pages: no second try.
    if (auto const e = uninterrupted([&] { return files_.sync(file_); }); e < 0)
      return failed(errc::cannot_write_file, e);
    auto const closed = files_.close(file_);
    file_ = -1;
    if (closed < 0 && closed != -EINTR) return failed(errc::cannot_write_file, closed);
    if (auto const e = files_.rename(folder_, temporary_.text, path_.name); e < 0)
      return failed(errc::cannot_write_file, e);
    temporary_.text[0] = 0;
    auto const e = uninterrupted([&] { return files_.sync(folder_); });
    return e < 0 ? failed(errc::file_not_durable, e) : status{};
  }

 private:
  static constexpr std::int32_t most_others = 100;

  static status failed(errc code, int error) noexcept { return {code, no_layer, -error, 0}; }

  status flush() noexcept {
    auto const bytes = std::span<std::byte const>(buffer_, used_);
    used_ = 0;
    return write_through(bytes);
  }
  status write_through(std::span<std::byte const> bytes) noexcept {
    while (!bytes.empty()) {
      auto const done =
          uninterrupted([&] { return files_.write(file_, bytes.data(), bytes.size()); });
      if (done <= 0)
        return failed(errc::cannot_write_file, done < 0 ? static_cast<int>(done) : -EIO);
      bytes = bytes.subspan(static_cast<std::size_t>(done));
    }
    return {};
  }

  Files files_;
  split_path path_;
  int folder_ = -1, file_ = -1;
  temporary_name temporary_;  // while there is such a file
  std::size_t used_ = 0;
  std::byte buffer_[16 << 10];
};

}  // namespace detail

STRATA_NAMESPACE_END
