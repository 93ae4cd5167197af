// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The threads of a block on the host, where they meet, and what they have in common. Each thread is
// a fiber; one runs until it has to wait for others. What a device may do, this does where it can be
// told apart:
//
//   - shared memory holds NaN before it is written
//   - a copy on its way arrives when its thread waits for it, or at once, as asked for: the former
//     shows who reads too early, the latter who is still reading what it overwrites
//   - the threads run in the order asked for, so that a missing sync shows in one of them: warps
//     one by one, each as far as it comes without the others, or all together
//   - threads of a warp that meet in different operations, or never, end the run with an error
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <exception>
#include <memory>
#include <numeric>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include <ucontext.h>
#include <csetjmp>

#include <strata/cuda/detail/thread_block.hpp>

#include "sanitized.hpp"

// _FORTIFY_SOURCE is some distributions' own default.
#if STRATA_TEST_SANITIZED || (defined(__USE_FORTIFY_LEVEL) && __USE_FORTIFY_LEVEL > 0)
#define STRATA_TEST_JUMPS 0
#else
#define STRATA_TEST_JUMPS 1
#endif

namespace simt {

/// A point in a fiber to go on from. swapcontext asks the kernel for the signal mask each time,
/// which is nine tenths of a run: it starts fibers, and then jumps do. AddressSanitizer knows the
/// former only, and a fortified C library takes jumps between stacks for errors. No variable of
/// switch_to changes between a point's setjmp and the jump there, so none has to be volatile.
class resume_point {
 public:
  ucontext_t& context() { return context_; }

  /// Goes on at `to`, until somebody comes back here.
  void switch_to(resume_point& to) {
#if STRATA_TEST_JUMPS
    if (to.jumps_) {
      jumps_ = true;
      if (_setjmp(at_) == 0) _longjmp(to.at_, 1);
      return;
    }
    jumps_ = true;
    if (_setjmp(at_) != 0) return;
#endif
    swapcontext(&context_, &to.context_);
  }

 private:
  ucontext_t context_ = {};
#if STRATA_TEST_JUMPS
  std::jmp_buf at_ = {};
  bool jumps_ = false;
#endif
};

/// Ascending and descending: warp by warp, each until all its threads wait for others. Shuffled:
/// every thread of the block has its turn, again and again.
enum class order { ascending, descending, shuffled };

/// When a copy arrives.
enum class arrival { at_wait, at_once };

/// Each with every order, as cases are counted.
inline order order_of(std::int32_t number) { return static_cast<order>(number % 3); }
inline arrival arrival_of(std::int32_t number) { return static_cast<arrival>(number / 3 % 2); }

struct launch_shape {
  std::int32_t blocks = 1;
  std::int32_t threads = 32;
  std::int64_t shared_bytes = 0;
};

/// What was moved, of all blocks of a launch.
struct traffic {
  std::int64_t async_bytes = 0;   ///< read by copies that were wanted
  std::int64_t loaded_bytes = 0;  ///< read by `load`
  std::int64_t added_bytes = 0;   ///< added to by `add_fragment`
  friend traffic operator+(traffic a, traffic b) {
    return {a.async_bytes + b.async_bytes, a.loaded_bytes + b.loaded_bytes,
            a.added_bytes + b.added_bytes};
  }
};

inline constexpr int warp_size = strata::cuda::detail::warp_size;

/// One block and its fibers.
class world {
 public:
  world(launch_shape const& shape, std::int32_t index, arrival copies, traffic& moved)
      : shape_(shape), index_(index), copies_(copies), moved_(moved) {
    shared_.assign(static_cast<std::size_t>(shape.shared_bytes + 15) / 16, {~0u, ~0u, ~0u, ~0u});
    fibers_.resize(static_cast<std::size_t>(shape.threads));
    warps_.resize(static_cast<std::size_t>((shape.threads + warp_size - 1) / warp_size));
  }

  /// Calls body(thread) in a fiber for every thread.
  template <class Body>
  void run(Body const& body, order o);

  launch_shape const& shape() const { return shape_; }
  std::int32_t index() const { return index_; }
  std::byte* memory() { return reinterpret_cast<std::byte*>(shared_.data()); }

  using slots = void* [warp_size];

  /// Waits for the warp's other lanes; the last one performs `op` on what all brought.
  void meet(std::int32_t thread, char const* name, void* slot, void (*op)(slots const&)) {
    auto& m = warps_[static_cast<std::size_t>(thread / warp_size)];
    if (m.arrived > 0 && std::strcmp(m.name, name) != 0)
      throw std::logic_error(std::string("lanes of a warp meet in ") + m.name + " and " + name);
    m.name = name;
    m.slot[thread % warp_size] = slot;
    if (++m.arrived < warp_size) return wait_for(m.epoch);
    op(m.slot);
    m.arrived = 0;
    ++m.epoch;
    ++progress_;
  }

  void sync() {
    if (++arrived_ < shape_.threads) return wait_for(epoch_);
    arrived_ = 0;
    ++epoch_;
    ++progress_;
  }

  // Copies on their way, of each thread.
  struct copy {
    std::byte* to;
    std::byte const* from;
    std::size_t bytes;
    bool wanted;
  };
  void copy_async(std::int32_t thread, copy const& c) {
    if (copies_ == arrival::at_once)
      arrive(c);
    else
      fiber_of(thread).open.push_back(c);
  }
  void commit_copies(std::int32_t thread) {
    auto& f = fiber_of(thread);
    f.groups.push_back(std::move(f.open));
    f.open.clear();
  }
  void wait_copies(std::int32_t thread, std::size_t but) {
    auto& groups = fiber_of(thread).groups;
    for (; groups.size() > but; groups.pop_front())
      for (auto const& c : groups.front()) arrive(c);
  }
  traffic& moved() { return moved_; }

 private:
  struct fiber {
    resume_point at;
    bool done = false;
    std::vector<copy> open;
    std::deque<std::vector<copy>> groups;
  };
  struct meeting {
    slots slot = {};
    char const* name = "";
    int arrived = 0;
    std::uint64_t epoch = 0;
  };

  void arrive(copy const& c) {
    if (c.wanted)
      std::memcpy(c.to, c.from, c.bytes);
    else
      std::memset(c.to, 0, c.bytes);
    moved_.async_bytes += c.wanted ? static_cast<std::int64_t>(c.bytes) : 0;
  }

  fiber& fiber_of(std::int32_t thread) { return fibers_[static_cast<std::size_t>(thread)]; }

  void wait_for(std::uint64_t const& epoch) {
    auto const now = epoch;
    while (epoch == now) fiber_of(running_).at.switch_to(scheduler_);
  }

  using turns = std::span<std::int32_t const>;

  template <class Body>
  void make_fibers(Body const& body);
  bool resume(turns threads);
  bool resume_until_all_wait(turns threads);

  template <class Body>
  static void enter(unsigned low, unsigned high);

  launch_shape shape_;
  std::int32_t index_;
  arrival copies_;
  traffic& moved_;
  std::vector<strata::cuda::detail::chunk> shared_;
  std::vector<fiber> fibers_;
  std::vector<meeting> warps_;
  resume_point scheduler_;
  std::int32_t running_ = 0;
  std::int32_t arrived_ = 0;  // at the block's barrier
  std::uint64_t epoch_ = 0;
  std::uint64_t progress_ = 0;
  void const* body_ = nullptr;
  std::exception_ptr failure_;
};

template <class Body>
void world::enter(unsigned low, unsigned high) {
  auto* const self = reinterpret_cast<world*>(std::uintptr_t{high} << 32 | low);
  auto const thread = self->running_;
  try {
    (*static_cast<Body const*>(self->body_))(thread);
  } catch (...) {
    self->failure_ = std::current_exception();
  }
  self->fiber_of(thread).done = true;
  ++self->progress_;
  self->fiber_of(thread).at.switch_to(self->scheduler_);
}

template <class Body>
void world::make_fibers(Body const& body) {
  constexpr std::size_t stack_bytes = 256 << 10;
  body_ = &body;
  auto const self = reinterpret_cast<std::uintptr_t>(this);
  static thread_local std::vector<std::unique_ptr<std::byte[]>> stacks;  // of one block at a time
  while (stacks.size() < fibers_.size())
    stacks.push_back(std::make_unique_for_overwrite<std::byte[]>(stack_bytes));
  std::size_t next = 0;
  for (auto& f : fibers_) {
    auto& context = f.at.context();
    getcontext(&context);
    context.uc_stack.ss_sp = stacks[next++].get();
    context.uc_stack.ss_size = stack_bytes;
    makecontext(&context, reinterpret_cast<void (*)()>(&enter<Body>), 2,
                static_cast<unsigned>(self), static_cast<unsigned>(self >> 32));
  }
}

/// A turn for each of these threads. Whether any was left.
inline bool world::resume(turns threads) {
  bool any = false;
  for (auto const t : threads) {
    if (fiber_of(t).done) continue;
    any = true;
    running_ = t;
    scheduler_.switch_to(fiber_of(t).at);
    if (failure_) std::rethrow_exception(failure_);
  }
  return any;
}

inline bool world::resume_until_all_wait(turns threads) {
  for (auto before = progress_; resume(threads); before = progress_)
    if (progress_ == before) return true;
  return false;
}

template <class Body>
void world::run(Body const& body, order o) {
  make_fibers(body);
  std::vector<std::int32_t> all(static_cast<std::size_t>(shape_.threads));
  std::iota(all.begin(), all.end(), 0);
  if (o == order::descending) std::reverse(all.begin(), all.end());
  if (o == order::shuffled) std::shuffle(all.begin(), all.end(), std::mt19937(index_));
  std::size_t const together = o == order::shuffled ? all.size() : warp_size;
  for (bool running = true; running;) {
    auto const before = progress_;
    running = false;
    for (std::size_t i = 0; i < all.size(); i += together) {
      turns const some = turns(all).subspan(i, std::min(together, all.size() - i));
      if (o == order::shuffled ? resume(some) : resume_until_all_wait(some)) running = true;
    }
    if (running && progress_ == before)
      throw std::logic_error("threads of a block wait for others that never come");
  }
}

}  // namespace simt
