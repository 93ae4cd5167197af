// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// News of long work, and the wish to stop it. On a terminal the news stay in place and are
// overwritten; elsewhere they are plain lines, and few of them.
#pragma once

#include <sys/ioctl.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>

namespace lm {

/// Seconds since it was made.
class stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

namespace detail {
inline volatile std::sig_atomic_t interrupt_now = 0;
inline volatile std::sig_atomic_t interrupt_ever = 0;
}  // namespace detail

/// From here on the next SIGINT or SIGTERM only sets a flag; the one after it ends the program as
/// usual.
inline void catch_interrupts() {
  struct sigaction action = {};
  action.sa_handler = [](int) {
    detail::interrupt_now = 1;
    detail::interrupt_ever = 1;
  };
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}
/// Whether somebody asked to stop; long loops look here and finish with what they have.
inline bool interrupted() { return detail::interrupt_now != 0; }
/// Whether that ever happened.
inline bool was_interrupted() { return detail::interrupt_ever != 0; }
/// Takes note of it: what comes next, such as writing a report, may be interrupted anew.
inline void begin_conclusion() {
  detail::interrupt_now = 0;
  catch_interrupts();
}

inline bool is_terminal(std::FILE* stream) { return isatty(fileno(stream)) == 1; }

/// Columns of the terminal behind a stream; 100 where there is none.
inline std::size_t terminal_columns(std::FILE* stream) {
  winsize size = {};
  if (ioctl(fileno(stream), TIOCGWINSZ, &size) != 0 || size.ws_col < 20) return 100;
  return size.ws_col;
}

/// Lines of news that replace each other on a terminal.
class live_text {
 public:
  /// plain_seconds: elsewhere, the least time between two texts.
  explicit live_text(std::FILE* stream = stderr, double plain_seconds = 10)
      : stream_(stream), plain_seconds_(plain_seconds), terminal_(is_terminal(stream)) {}

  bool on_terminal() const { return terminal_; }

  /// Shows `text`, whose lines end in newlines. Elsewhere it is printed if enough time has passed
  /// or if it `matters`.
  void show(std::string_view text, bool matters = false) {
    if (terminal_) {
      std::string out = rewind();
      shown_lines_ = 0;
      auto const width = terminal_columns(stream_) - 1;
      while (!text.empty()) {
        auto const end = text.find('\n');
        out += cut(text.substr(0, end), width);  // a wrapped line would be counted as one
        out += '\n';
        ++shown_lines_;
        text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
      }
      std::fwrite(out.data(), 1, out.size(), stream_);
    } else if (matters || !printed_ || since_.seconds() >= plain_seconds_) {
      std::fwrite(text.data(), 1, text.size(), stream_);
      since_ = stopwatch();
      printed_ = true;
    }
    std::fflush(stream_);
  }

  /// Removes the text from the terminal.
  void clear() {
    auto const out = rewind();
    std::fwrite(out.data(), 1, out.size(), stream_);
    std::fflush(stream_);
    shown_lines_ = 0;
  }
  /// Leaves the text where it is; what is shown next comes below.
  void keep() { shown_lines_ = 0; }

 private:
  std::string rewind() const {
    if (shown_lines_ == 0) return {};
    return "\x1b[" + std::to_string(shown_lines_) + "A\x1b[J";
  }

  static std::string cut(std::string_view line, std::size_t width) {
    std::size_t columns = 0, at = 0;
    for (; at < line.size(); ++at) {
      bool const starts_character = (static_cast<unsigned char>(line[at]) & 0xC0) != 0x80;
      if (starts_character && columns++ == width) break;
    }
    return std::string(line.substr(0, at));
  }

  std::FILE* stream_;
  double plain_seconds_;
  bool terminal_;
  bool printed_ = false;
  int shown_lines_ = 0;
  stopwatch since_;
};

}  // namespace lm
