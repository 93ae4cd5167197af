// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Whole files that replace what was there, and whether they will be able to: who waits an hour for
// a report learns at the start that its folder does not exist.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "failure.hpp"

namespace lm {

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

/// Writes beside the file first, so that a reader never sees half of it. Whatever fails, the file
/// is what it was and nothing else is left.
inline void write_text(std::string const& path, std::string const& content) {
  auto const draft = path + ".tmp";
  std::ofstream file(draft, std::ios::binary);
  file << content;
  file.close();
  if (file && std::rename(draft.c_str(), path.c_str()) == 0) return;
  unlink(draft.c_str());
  throw failure("cannot write " + path);
}

}  // namespace lm
