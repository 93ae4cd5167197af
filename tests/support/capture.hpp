// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <string>

namespace support {

/// What comes out of a stream while this lives, stdout or stderr.
class capture {
 public:
  explicit capture(std::FILE* stream) : stream_(stream), file_(std::tmpfile()) {
    flush();
    saved_ = dup(fileno(stream));
    dup2(fileno(file_), fileno(stream));
  }
  ~capture() {
    end();
    std::fclose(file_);
  }
  capture(capture const&) = delete;
  capture& operator=(capture const&) = delete;

  /// Ends it.
  std::string text() {
    end();
    std::rewind(file_);
    std::string out;
    for (int c = std::fgetc(file_); c != EOF; c = std::fgetc(file_)) out += static_cast<char>(c);
    return out;
  }

 private:
  void flush() {
    std::fflush(stream_);
    std::cout.flush();
    std::cerr.flush();
  }
  void end() {
    if (saved_ < 0) return;
    flush();
    dup2(saved_, fileno(stream_));
    close(saved_);
    saved_ = -1;
  }

  std::FILE* stream_;
  std::FILE* file_;
  int saved_ = -1;
};

}  // namespace support
