// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// An executor of std::threads. Apart from executor.hpp because <thread> and its like cost 0.4 s of
// compile time that an engine with threads of its own should not pay.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <thread>
#include <type_traits>
#include <vector>

#include <strata/config.hpp>
#include <strata/executor.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

/// A fixed set of threads; the calling thread is one of them. One `run` at a time.
class thread_pool {
 public:
  /// `num_threads` of 0 takes as many as the machine has. Where the system lets fewer start, the
  /// pool has fewer: `num_shares` tells.
  explicit thread_pool(std::int32_t num_threads = 0)
      : num_shares_(num_threads > 0 ? num_threads : available_threads()),
        outcomes_(static_cast<std::size_t>(num_shares_)) {
    workers_.reserve(outcomes_.size());
#if STRATA_HAS_EXCEPTIONS
    try {
      start();
    } catch (std::system_error const&) {
      num_shares_ = static_cast<std::int32_t>(workers_.size()) + 1;
    }
#else
    start();
#endif
  }
  thread_pool(thread_pool const&) = delete;
  thread_pool& operator=(thread_pool const&) = delete;

  ~thread_pool() {
    {
      std::lock_guard const lock(mutex_);
      stopping_.store(true, std::memory_order_release);
    }
    wake_.notify_all();
    for (auto& worker : workers_) worker.join();
  }

  std::int32_t num_shares() const noexcept { return num_shares_; }

  template <class Body>
  status run(Body&& body) noexcept {
    auto const call = [](void* context, share s) noexcept -> status {
      return (*static_cast<std::remove_reference_t<Body>*>(context))(s);
    };
    {
      std::lock_guard const lock(mutex_);
      body_ = call;
      context_ = const_cast<void*>(static_cast<void const*>(&body));
      running_.store(num_shares_ - 1, std::memory_order_relaxed);
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    outcomes_[0] = call(context_, {0, num_shares_});
    wait(done_, [this] { return running_.load(std::memory_order_acquire) == 0; });
    for (auto const& outcome : outcomes_)
      if (!outcome.ok()) return outcome;
    return {};
  }

 private:
  void start() {
    for (std::int32_t i = 1; i < num_shares_; ++i) workers_.emplace_back([this, i] { work(i); });
  }

  static std::int32_t available_threads() noexcept {
    auto const count = static_cast<std::int32_t>(std::thread::hardware_concurrency());
    return count > 0 ? count : 1;
  }

  void work(std::int32_t ith) noexcept {
    for (std::uint64_t seen = 0;; ++seen) {
      wait(wake_, [&] {
        return stopping_.load(std::memory_order_acquire) ||
               generation_.load(std::memory_order_acquire) != seen;
      });
      if (stopping_.load(std::memory_order_acquire)) return;
      outcomes_[static_cast<std::size_t>(ith)] = body_(context_, {ith, num_shares_});
      if (running_.fetch_sub(1, std::memory_order_acq_rel) > 1) continue;
      mutex_.lock();  // who waits has either seen it or sleeps by now
      mutex_.unlock();
      done_.notify_one();
    }
  }

  /// Looks for some 20 us before it sleeps, where every thread has a core. A decode step is a
  /// hundred short jobs one after the other, and to wake a thread takes longer: an empty job of two
  /// threads takes 0.4 us so, and 39 us otherwise.
  template <class Ready>
  void wait(std::condition_variable& condition, Ready const& ready) noexcept {
    for (std::int32_t i = 0; i < looks_; ++i) {
      if (ready()) return;
      pause();
    }
    std::unique_lock lock(mutex_);
    condition.wait(lock, ready);
  }
  static void pause() noexcept {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  std::int32_t num_shares_;
  std::int32_t looks_ = num_shares_ > available_threads() ? 0 : 1000;
  std::vector<status> outcomes_;
  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  status (*body_)(void*, share) noexcept = nullptr;
  void* context_ = nullptr;
  std::atomic<std::int32_t> running_{0};
  std::atomic<std::uint64_t> generation_{0};
  std::atomic<bool> stopping_{false};
};

STRATA_NAMESPACE_END
