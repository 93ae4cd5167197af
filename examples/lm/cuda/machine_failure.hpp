// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <string>

#include "failure.hpp"

namespace lm::cuda {

/// What a machine could not do, with the code of the runtime or the library that says so.
class machine_failure : public failure {
 public:
  machine_failure(std::string const& sentence, std::int64_t error, exit_code code)
      : failure(sentence, code), error_(error) {}
  std::int64_t error() const noexcept { return error_; }

 private:
  std::int64_t error_;
};

}  // namespace lm::cuda
