# Sourced by the launch scripts, of which it has SIZE, ARGUMENTS and the nodes; "$@" is the user's.

export HCCL_CONNECT_TIMEOUT=${HCCL_CONNECT_TIMEOUT:-1200}
if [ -f "$ASCEND_ENV" ]; then
    source "$ASCEND_ENV"
fi

NODES=(
    --nproc_per_node "$NPUS_PER_NODE"
    --nnodes "$NNODES"
    --node_rank "$NODE_RANK"
    --master_addr "$MASTER_ADDR"
    --master_port "$MASTER_PORT"
)

# The run takes the place of this shell, so that signals reach it and its exit status is kept.
mkdir -p logs
exec python "$(dirname "${BASH_SOURCE[0]}")/../pretrain_baichuan.py" \
    "$SIZE" "${NODES[@]}" "${ARGUMENTS[@]}" "$@" \
    > >(tee -i "logs/loss_$(date +%Y%m%d_%H%M%S).log")
