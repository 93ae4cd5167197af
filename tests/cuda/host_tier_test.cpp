// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A tier under a device's storage, the device in the host's memory and as late as it may be.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include <strata/cache/fp8_codec.hpp>
#include <strata/cache/host_tier.hpp>
#include <strata/cache/int8_codec.hpp>
#include <strata/cache/paged_storage.hpp>

#include "support/deferred_device.hpp"
#include "support/lent_memory.hpp"
#include "support/offloaded_sequences.hpp"
#include "support/simt_attention.hpp"

namespace {

using late_tier_device = support::deferred_device<support::simt_launcher>;

/// Copies lie in a stream until somebody waits.
struct late_copier {
  static constexpr bool on_device = true;
  late_tier_device device;

  struct memory {
    late_tier_device device;
    std::vector<std::byte> bytes;

    static strata::result<memory> make(late_copier const& copier, std::int64_t size) noexcept {
      memory made;
      made.device = copier.device;
      made.bytes.assign(static_cast<std::size_t>(size), std::byte{0xCC});
      return strata::result<memory>(std::move(made));
    }
    memory() = default;
    memory(memory&&) = default;
    memory& operator=(memory&& other) noexcept {
      std::swap(device, other.device);
      std::swap(bytes, other.bytes);
      return *this;
    }
    ~memory() {
      if (!bytes.empty()) device.stream->finish();
    }
    std::byte* data() noexcept { return bytes.data(); }
  };

  strata::status copy(std::byte* to, std::byte const* from, std::size_t bytes) const noexcept {
    return device.copy(to, from, bytes);
  }
  strata::status wait() const noexcept {
    device.stream->finish();
    return {};
  }
};

struct late_memory {
  late_tier_device device;

  void write(std::byte* to, std::vector<std::byte> const& bytes) const {
    device.stream->add([=] { std::copy(bytes.begin(), bytes.end(), to); });
  }
  std::vector<std::byte> read(std::byte const* from, std::size_t bytes) const {
    device.stream->finish();
    return {from, from + bytes};
  }
};

template <class Storage>
void check_late() {
  namespace tiers = support::tiers;
  support::lent_memory<Storage> const memory(tiers::model, tiers::room);
  late_tier_device const late;
  auto storage = memory.make();
  {
    auto tier =
        strata::host_tier<late_copier>::make(storage, tiers::tier_room, late_copier{late}).value();
    tiers::run(storage, tier, late_memory{late}, [&] {
      CHECK(late.stream->num_waiting() > 100);  // nothing has happened yet
      CHECK(tier.wait().ok());
      CHECK(late.stream->num_waiting() == 0);
    });
    CHECK(late.stream->num_waiting() > 0);
  }
  CHECK(late.stream->num_waiting() == 0);  // who takes the memory back waited
}

}  // namespace

TEST_CASE("cuda tier: sequences go and come back on a device that is late") {
  check_late<strata::paged_storage<strata::bf16_codec>>();
  check_late<strata::paged_storage<strata::fp8_codec, strata::int8_codec>>();
}

TEST_CASE("cuda tier: what a device had comes back to the host") {
  namespace tiers = support::tiers;
  using storage_type = strata::paged_storage<strata::bf16_codec>;
  support::lent_memory<storage_type> const memory(tiers::model, tiers::room);
  late_tier_device const late;
  auto device = memory.make();
  auto host = *storage_type::make(tiers::model, tiers::room);
  auto tier =
      strata::host_tier<late_copier>::make(device, tiers::tier_room, late_copier{late}).value();
  tiers::known_bytes known;
  auto const plan = make_plan(strata::identity_map(tiers::layers), tiers::model).value();
  auto const id = tiers::fill(device, plan, 3, late_memory{late}, known);
  auto const back = tier.reload(host, tier.offload(device, id).value()).value();
  REQUIRE(tier.wait().ok());
  std::size_t pieces = 0;
  tiers::for_pieces(host, back, [&](auto const& key, auto bytes) {
    ++pieces;
    CHECK(std::vector<std::byte>(bytes.begin(), bytes.end()) == known.at(key));
  });
  CHECK(pieces == known.size());
}
