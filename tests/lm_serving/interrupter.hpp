// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Ctrl-C, as a test presses it: at once, or when a file appears.
#pragma once

#include <atomic>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <string>
#include <thread>
#include <utility>

#include "progress.hpp"

namespace commanded {

/// For the tests that come after one with an interruption.
inline void forget_interrupts() {
  lm::detail::interrupt_now = 0;
  lm::detail::interrupt_ever = 0;
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

inline void interrupt() {
  lm::detail::interrupt_ever = 1;
  lm::detail::interrupt_now = 1;
}

/// While this lives, somebody has interrupted.
class interrupted_now {
 public:
  interrupted_now() { interrupt(); }
  ~interrupted_now() { forget_interrupts(); }
  interrupted_now(interrupted_now const&) = delete;
  interrupted_now& operator=(interrupted_now const&) = delete;
};

/// Interrupts when a file appears, or after a minute, so that a test that fails ends.
class interrupter {
 public:
  explicit interrupter(std::string path)
      : thread_([this, path = std::move(path)] { wait(path); }) {}
  ~interrupter() {
    give_up_ = true;
    thread_.join();
    forget_interrupts();
  }
  interrupter(interrupter const&) = delete;
  interrupter& operator=(interrupter const&) = delete;

  bool saw_the_file() const { return saw_; }

 private:
  void wait(std::string const& path) {
    lm::stopwatch const clock;
    while (!give_up_ && !saw_ && clock.seconds() < 60) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      saw_ = std::filesystem::exists(path);
    }
    interrupt();
  }

  std::atomic<bool> give_up_ = false, saw_ = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace commanded
