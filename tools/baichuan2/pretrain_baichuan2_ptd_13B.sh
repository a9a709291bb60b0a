#!/usr/bin/env bash
# Trains Baichuan2-13B as AscendSpeed's script of this name does; see docs/from-ascendspeed.md.
#
# Run it on both nodes, from the root of the repository, with the MASTER_ADDR of the first and
# NODE_RANK 0 on that and 1 on the other. Change the values here, or give them in the environment;
# further arguments of AscendSpeed, on the command line or inserted below, have the last word.
# To fine-tune on conversations: DATA_PATH=./processed_data_of_moss/processed_data, and the
# arguments --is-instruction-dataset --padding-attention-mask.

ASCEND_ENV=${ASCEND_ENV:-/usr/local/Ascend/ascend-toolkit/set_env.sh}

TOKENIZER_PATH=${TOKENIZER_PATH:-./Baichuan2-13B-Base}
DATA_PATH=${DATA_PATH:-./processed_data_of_moss/processed_data_packed_input_ids_document}
LOAD_PATH=${LOAD_PATH:-./baichuan2-13b-merge}
CHECKPOINT_PATH=${CHECKPOINT_PATH:-./ckpt}

MASTER_ADDR=${MASTER_ADDR:-}  # the first node's
MASTER_PORT=${MASTER_PORT:-12892}
NNODES=${NNODES:-2}
NODE_RANK=${NODE_RANK:-0}
NPUS_PER_NODE=${NPUS_PER_NODE:-8}
TP=${TP:-8}

MICRO_BATCH=${MICRO_BATCH:-2}
GLOBAL_BATCH=${GLOBAL_BATCH:-256}
SEQ_LENGTH=${SEQ_LENGTH:-4096}
TRAIN_ITERS=${TRAIN_ITERS:-1000}

ARGUMENTS=(
    --tensor-model-parallel-size "$TP"
    --pipeline-model-parallel-size 1
    --sequence-parallel
    --num-layers 40
    --hidden-size 5120
    --ffn-hidden-size 13696
    --num-attention-heads 40
    --position-embedding-type alibi
    --square-alibi-mask
    --max-position-embeddings 4096
    --normalization RMSNorm
    --layernorm-epsilon 1e-6
    --lm-norm-weight
    --z-loss-weight 0
    --make-vocab-size-divisible-by 8
    --micro-batch-size "$MICRO_BATCH"
    --global-batch-size "$GLOBAL_BATCH"
    --seq-length "$SEQ_LENGTH"
    --train-iters "$TRAIN_ITERS"
    --load "$LOAD_PATH"
    --save "$CHECKPOINT_PATH"
    --save-interval 1000
    --data-path "$DATA_PATH"
    --data-impl mmap
    --split 949,50,1
    --keep-last-token
    --tokenizer-name-or-path "$TOKENIZER_PATH"
    --tokenizer-not-use-fast
    --lr 2e-5
    --min-lr 1e-8
    --lr-decay-style constant
    --weight-decay 1e-4
    --clip-grad 1.0
    --adam-beta1 0.9
    --adam-beta2 0.98
    --adam-eps 1e-8
    --initial-loss-scale 8188.0
    --seed 1234
    --eval-interval 1000
    --eval-iters 10
    --log-interval 1
    --DDP-impl local
    --distributed-backend nccl
    --mlp-layer-fusion
    --release-fp32-grad
    --auto-recompute-device-size 57344
    --use-distributed-optimizer
    --use-flash-attn
    --use-fused-rmsnorm
    --bf16
)

SIZE=13B
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
