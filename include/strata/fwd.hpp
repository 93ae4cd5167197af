// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Names without definitions, for headers that only pass strata's types on. strata.hpp defines all
// of them but thread_pool, which needs thread_pool.hpp; nor does it bring picture.hpp (plans as
// text) and attention/cpu/blocked.hpp (the fast CPU kernel), which have nothing to name here.
#pragma once

#include <concepts>
#include <cstdint>

#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

struct layer_id;
struct slot_id;
struct sequence_id;
struct status;
template <class T>
class result;
struct kv_class;
struct layer_kind;
class kv_classes;
struct draw_key;
class candidates;
class any_sampler;
class table_map;
class leader_set;
struct route;
struct layer_step;
struct route_plan;
struct share;
class thread_pool;
template <class Element>
struct plain_codec;
template <bool Interleaved>
struct int8_span_codec;
struct fp8_codec;
template <std::floating_point T>
struct rotary;

STRATA_NAMESPACE_END
