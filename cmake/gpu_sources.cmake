# The sources of the GPU half: compiled by nvcc for GPUs, each list in its own folder, and all together by the host
# compiler against the emulator (harness/emulator/CMakeLists.txt).
# SPDX-License-Identifier: Apache-2.0
set(SP_GPU_OPTIMIZED comm/local/local_communicator.cpp comm/local/local_session.cpp comm/local/local_transfer.cpp
                     comm/local/local_world.cpp comm/nccl/nccl_communicator.cpp comm/nccl/nccl_requests.cpp comm/nccl/nccl_session.cpp
                     kernels/cuda/attention.cu kernels/cuda/attention_backward.cu kernels/cuda/attention_forward.cu
                     kernels/cuda/attention_plain.cu kernels/cuda/attention_plain_backward.cu
                     kernels/cuda/cuda_memory.cpp kernels/cuda/elementwise.cu kernels/cuda/gpu.cpp
                     kernels/cuda/linear_apply.cu kernels/cuda/linear_backward.cu kernels/cuda/linear_backward_norm.cu
                     kernels/cuda/linear_backward_states.cu kernels/cuda/linear_backward_values.cu
                     kernels/cuda/linear_backward_vectors.cu kernels/cuda/linear_block.cu
                     kernels/cuda/linear_block_backward.cu kernels/cuda/linear_decay.cu
                     kernels/cuda/linear_documents.cu kernels/cuda/linear_intra.cu kernels/cuda/linear_norm.cu
                     kernels/cuda/linear_output.cu kernels/cuda/linear_output_backward.cu kernels/cuda/linear_pass.cu
                     kernels/cuda/linear_states.cu kernels/cuda/merge.cu kernels/cuda/mma_probe.cu
                     kernels/cuda/projection.cu kernels/cuda/rank_sum.cu kernels/cuda/scores.cu kernels/cuda/timers.cpp
                     kernels/cuda/token_tables.cu)
set(SP_GPU_REFERENCE cuda/attention.cu cuda/linear_attention.cu)
set(SP_GPU_HARNESS run/gpu_backend.cpp run/gpu_machine.cpp run/nccl_ranks.cpp)
