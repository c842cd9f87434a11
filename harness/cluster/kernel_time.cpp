// SPDX-License-Identifier: Apache-2.0
#include "harness/cluster/kernel_time.hpp"
