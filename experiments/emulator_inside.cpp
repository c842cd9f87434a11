// The emulator's side of seqpar-emulated.
// SPDX-License-Identifier: Apache-2.0
#include "experiments/emulated_backend.hpp"

namespace sp {

std::string emulator_absence() { return ""; }

std::unique_ptr<Backend> make_emulated_backend(std::chrono::milliseconds time_limit,
                                               Transport transport,
                                               const std::vector<std::string>& /*words*/) {
  return emulated::make_backend(time_limit, transport);
}

}  // namespace sp
