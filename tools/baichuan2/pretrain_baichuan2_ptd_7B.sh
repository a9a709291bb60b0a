#!/usr/bin/env bash
# Pretrains Baichuan2-7B as AscendSpeed's script of this name does; see docs/from-ascendspeed.md.
#
# Run it from the root of the repository. Change the values here, or give them in the environment;
# further arguments of AscendSpeed, on the command line or inserted below, have the last word.

ASCEND_ENV=${ASCEND_ENV:-/usr/local/Ascend/ascend-toolkit/set_env.sh}

TOKENIZER_PATH=${TOKENIZER_PATH:-./baichuan2-7B-hf/}
DATA_PATH=${DATA_PATH:-./dataset_baichuan2-7B/alpaca_text_document}
LOAD_PATH=${LOAD_PATH:-}  # such as ./weight; random weights where empty, as in the README
CHECKPOINT_PATH=${CHECKPOINT_PATH:-./ckpt}

MASTER_ADDR=${MASTER_ADDR:-}  # of several nodes
MASTER_PORT=${MASTER_PORT:-12892}
NNODES=${NNODES:-1}
NODE_RANK=${NODE_RANK:-0}
NPUS_PER_NODE=${NPUS_PER_NODE:-8}
TP=${TP:-8}

MICRO_BATCH=${MICRO_BATCH:-4}
GLOBAL_BATCH=${GLOBAL_BATCH:-128}
SEQ_LENGTH=${SEQ_LENGTH:-4096}
TRAIN_ITERS=${TRAIN_ITERS:-100000}

ARGUMENTS=(
    --tensor-model-parallel-size "$TP"
    --pipeline-model-parallel-size 1
    --sequence-parallel
    --num-layers 32
    --hidden-size 4096
    --ffn-hidden-size 11008
    --num-attention-heads 32
    --position-embedding-type rope
    --max-position-embeddings 4096
    --normalization RMSNorm
    --lm-norm-weight
    --micro-batch-size "$MICRO_BATCH"
    --global-batch-size "$GLOBAL_BATCH"
    --seq-length "$SEQ_LENGTH"
    --train-iters "$TRAIN_ITERS"
    --save "$CHECKPOINT_PATH"
    --save-interval 1000
    --data-path "$DATA_PATH"
    --data-impl mmap
    --split 949,50,1
    --tokenizer-name-or-path "$TOKENIZER_PATH"
    --tokenizer-not-use-fast
    --lr 1e-6
    --min-lr 1e-8
    --lr-decay-style cosine
    --weight-decay 1e-2
    --clip-grad 1.0
    --adam-beta1 0.9
    --adam-beta2 0.95
    --seed 1234
    --eval-interval 1000
    --eval-iters 10
    --log-interval 1
    --DDP-impl local
    --distributed-backend nccl
    --mlp-layer-fusion
    --use-flash-attn
    --use-fused-rotary-pos-emb
    --use-fused-rmsnorm
    --bf16
)
if [ -n "$LOAD_PATH" ]; then
    ARGUMENTS+=(--load "$LOAD_PATH")
fi

SIZE=7B
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
