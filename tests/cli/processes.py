"""How tests start the command, alone and below mpiexec.

SPDX-License-Identifier: Apache-2.0
"""

import subprocess

# Of mpiexec and what it starts.
MPI_ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
    "ASAN_OPTIONS": "detect_leaks=0",  # MPI leaks by design
}


def run(*words, **more):
    return subprocess.run(words, capture_output=True, text=True, timeout=120, **more)
