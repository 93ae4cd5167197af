// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Every kernel on caches that lie further apart than 32 bits can count, in bytes and in elements.
// The memory is virtual: of many GiB only the pages that tokens lie in are ever touched.
#include <doctest/doctest.h>

#if __has_include(<sys/mman.h>)

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include <strata/cache/codec.hpp>
#include <strata/cache/view.hpp>

#include "attention/kernel_instances.hpp"
#include "support/attention_cases.hpp"
#include "support/cpu_kernels.hpp"
#include "support/kernel_checks.hpp"
#include "support/print.hpp"

namespace {

using support::as_size;
using support::attention_case;
using support::attention_problem;

constexpr std::int64_t gib = std::int64_t{1} << 30;

/// Zeros without end, or null where the machine grants no such range.
class virtual_memory {
 public:
  explicit virtual_memory(std::int64_t bytes) : bytes_(as_size(bytes)) {
    void* const got = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (got != MAP_FAILED) data_ = static_cast<std::byte*>(got);
  }
  ~virtual_memory() {
    if (data_ != nullptr) ::munmap(data_, bytes_);
  }
  virtual_memory(virtual_memory const&) = delete;
  virtual_memory& operator=(virtual_memory const&) = delete;

  std::byte* data() const { return data_; }

 private:
  std::byte* data_ = nullptr;
  std::size_t bytes_;
};

/// A tensor's rows, copied into `to`, which lies in memory that it does not share.
template <class Codec, class View>
void copy_rows(View const& view, strata::tensor_blocks const& from,
               strata::writable_blocks const& to, std::int32_t dim) {
  support::for_each_token(view, [&](auto s, auto h, auto t) {
    std::memcpy(to.at(to.row(s, h, view.kv_heads), h, t),
                from.at(from.row(s, h, view.kv_heads), h, t), as_size(Codec::row_bytes(dim)));
  });
}

/// Whether two gradients agree on every token that exists.
template <class View, class Strides>
bool same_gradient(View const& view, std::int32_t dim, float const* a, Strides const& a_stride,
                   float const* b, Strides const& b_stride) {
  bool same = true;
  support::for_each_token(view, [&](auto s, auto h, auto t) {
    auto const* const x = a + s * a_stride.seq + t * a_stride.token + h * a_stride.head;
    auto const* const y = b + s * b_stride.seq + t * b_stride.token + h * b_stride.head;
    same = same && std::equal(x, x + dim, y);
  });
  return same;
}

/// The blocks of K and of V in `bytes` each, as `lay_out` says: the same bits as in memory without
/// gaps, which is itself within the bound.
template <class Codec, class LayOut>
void check_far(std::int64_t bytes, LayOut&& lay_out) {
  virtual_memory const k(bytes), v(bytes);
  if (k.data() == nullptr || v.data() == nullptr) {
    MESSAGE("skipped: this machine grants no range of " << bytes / gib << " GiB");
    return;
  }
  for (std::int32_t const rows : {1, 30}) {
    attention_problem<Codec> problem({"", {300, 70}, {rows, rows}, 4, 2, 64, 80});
    auto const near = problem.view();
    auto far = near;
    strata::writable_blocks const k_far = lay_out(k.data(), near.k_dim);
    strata::writable_blocks const v_far = lay_out(v.data(), near.v_dim);
    copy_rows<Codec>(near, near.k, k_far, near.k_dim);
    copy_rows<Codec>(near, near.v, v_far, near.v_dim);
    far.k = k_far;
    far.v = v_far;
    support::reference_results const expected(problem, far);
    support::for_each_kernel([&](auto const& kernel) {
      CHECK(support::worst_excess(kernel, problem, expected, near) <= 2);
      CHECK(support::worst_excess(kernel, problem, expected, far) <= 2);
    });
  }
}

template <class Codec>
void check_all_layouts() {
  check_far<Codec>(40 * gib, [](std::byte* data, std::int32_t dim) {  // heads 8 GiB apart
    return strata::hnd_blocks<Codec>(
        data, static_cast<std::int32_t>(8 * gib / Codec::row_bytes(dim)), 2, dim);
  });
  check_far<Codec>(40 * gib, [](std::byte* data, std::int32_t dim) {  // tokens 32 MiB apart
    auto blocks = strata::nhd_blocks<Codec>(data, 300, 2, dim);
    blocks.stride.token = gib / 32;
    blocks.stride.block = 20 * gib;
    return blocks;
  });
  check_far<Codec>(24 * gib, [](std::byte* data, std::int32_t dim) {  // blocks up to 20 GiB away
    static std::vector<std::int32_t> table;
    auto blocks = strata::nhd_blocks<Codec>(data, 16, 2, dim);
    auto const last = static_cast<std::int32_t>(20 * gib / blocks.stride.block);
    table.clear();
    for (std::int32_t i = 0; i < 40; ++i) table.push_back(last - i * (last / 40));
    blocks.block_table = table.data();
    blocks.blocks_per_row = 20;
    return blocks;
  });
}

}  // namespace

TEST_CASE("kernels: K and V beyond 2^32 elements, f32") { check_all_layouts<strata::f32_codec>(); }
TEST_CASE("kernels: K and V beyond 2^32 elements, bf16") {
  check_all_layouts<strata::bf16_codec>();
}

TEST_CASE("kernels: tables, positions and gradients beyond 2^32 elements") {
  constexpr std::int64_t far_row = (std::int64_t{1} << 32) + 40;  // elements
  virtual_memory const tables(20 * gib), positions(20 * gib), gradient(20 * gib);
  if (tables.data() == nullptr || positions.data() == nullptr || gradient.data() == nullptr) {
    MESSAGE("skipped: this machine grants no range of 20 GiB");
    return;
  }
  attention_case c{"", {300, 70}, {3, 3}, 4, 2, 64, 80};
  c.layout = {16, 16};
  c.gaps = true;
  attention_problem<strata::f32_codec> problem(c);
  support::reference_results const expected(problem);
  auto view = problem.view();
  auto* const table = reinterpret_cast<std::int32_t*>(tables.data());
  std::int64_t begin = 0;
  for (auto* tensor : {&view.k, &view.v}) {
    for (std::int32_t s = 0; s < 2; ++s)
      std::copy_n(tensor->block_table + s * tensor->blocks_per_row, tensor->blocks_per_row,
                  table + begin + s * far_row);
    tensor->block_table = table + begin;
    tensor->blocks_per_row = far_row;
    begin += 4096;
  }
  auto* const position = reinterpret_cast<std::int32_t*>(positions.data());
  for (std::int32_t s = 0; s < 2; ++s)
    for (std::int32_t h = 0; h < 2; ++h)
      std::copy_n(view.positions(s, h), view.length(s, h), position + s * far_row + h * 4096);
  view.rows.positions = position;
  view.rows.position_seq_stride = far_row;
  view.rows.position_head_stride = 4096;
  support::for_each_kernel([&](auto const& kernel) {
    CHECK(support::worst_excess(kernel, problem, expected, view) <= 2);
    support::attention_call<float> near(problem), far(problem);
    far.grad.dk = reinterpret_cast<float*>(gradient.data());
    far.grad.dk_stride = {far_row, 256, 64};
    far.grad.dv = far.grad.dk + (1 << 20);
    far.grad.dv_stride = {far_row, 256, 80};
    for (auto* call : {&near, &far}) {
      REQUIRE(call->forward(kernel, view).ok());
      REQUIRE(call->backward(kernel, view).ok());
    }
    auto const &a = near.grad, &b = far.grad;
    CHECK(same_gradient(view, 64, a.dk, a.dk_stride, b.dk, b.dk_stride));
    CHECK(same_gradient(view, 80, a.dv, a.dv_stride, b.dv, b.dv_stride));
  });
}

#endif
