# For every box and for the laptop, in the project's folder:  . cluster/environment.sh
# docs/cluster.md has the table of the ports; ray-cluster.yaml starts its boxes with this file too.

# Every request to Ray needs the token of this file, the same on all of them.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$HOME/.ray/persianmind_token" RAY_USAGE_STATS_ENABLED=0

# Ray's metrics on loopback: they ask nobody for a token.
[ -d cluster/loopback_metrics ] || { echo "cluster/environment.sh: cd to the project's folder first" >&2; return 1; }
export PYTHONPATH="$PWD/cluster/loopback_metrics${PYTHONPATH:+:$PYTHONPATH}"

# `ray start` on ports that a firewall can know.
ray_start() {
    ray start --node-manager-port=6380 --object-manager-port=6381 --dashboard-agent-grpc-port=6382 \
        --runtime-env-agent-port=6383 --metrics-export-port=6384 --dashboard-agent-listen-port=52365 \
        --min-worker-port=10002 --max-worker-port=10999 "$@"
}
