// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// One integer, major * 10000 + minor * 100 + patch; the build reads it from here.
#pragma once

#include <strata/config.hpp>

#define STRATA_VERSION 100  // 0.1.0

STRATA_NAMESPACE_BEGIN

inline constexpr int version_major = STRATA_VERSION / 10000;
inline constexpr int version_minor = STRATA_VERSION / 100 % 100;
inline constexpr int version_patch = STRATA_VERSION % 100;

STRATA_NAMESPACE_END
