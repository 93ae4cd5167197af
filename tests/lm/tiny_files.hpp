// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Files and folders of a test that go away with it.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

namespace tiny {

/// A path in the temporary folder; what is there is removed in the end.
class scratch_file {
 public:
  explicit scratch_file(std::string const& name)
      : path_("/tmp/strata_" + std::to_string(getpid()) + "_" + name) {}
  ~scratch_file() { unlink(path_.c_str()); }
  scratch_file(scratch_file const&) = delete;
  scratch_file& operator=(scratch_file const&) = delete;

  std::string const& path() const noexcept { return path_; }

 private:
  std::string path_;
};

/// An empty folder.
class scratch_folder {
 public:
  explicit scratch_folder(std::string const& name)
      : path_("/tmp/strata_" + std::to_string(getpid()) + "_" + name) {
    std::filesystem::create_directory(path_);
  }
  ~scratch_folder() { std::filesystem::remove_all(path_); }
  scratch_folder(scratch_folder const&) = delete;
  scratch_folder& operator=(scratch_folder const&) = delete;

  std::string const& path() const noexcept { return path_; }
  /// Names of what is inside, sorted.
  std::vector<std::string> entries() const {
    std::vector<std::string> names;
    for (auto const& entry : std::filesystem::directory_iterator(path_))
      names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }

 private:
  std::string path_;
};

}  // namespace tiny
