# shellcheck shell=bash
# Shared by the scripts: output, root rights, where things are. Source it; it runs nothing by itself.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# Debian's own Python, whatever else is first on PATH: the modules come from Debian's packages
# shellcheck disable=SC2034
PYTHON=/usr/bin/python3
TOOLS_DIR=$ROOT/build/tools

say() { printf '==> %s\n' "$*"; }
note() { printf '    %s\n' "$*"; }
warn() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }
fail() {
    warn "$*"
    exit 1
}

# Prints a line every ten seconds until it is killed; $1 says what takes so long. It starts no process of its
# own (no sleep), so that none is left behind.
heartbeat() {
    local began=$SECONDS
    trap 'exit 0' TERM
    while ! read -rt 10 <> <(:); do
        note "still $1 ($((SECONDS - began)) s)"
    done
}

# step LOG TEXT COMMAND...: runs the command with its output appended to LOG, says what is going on, and on
# failure shows the end of the log and gives the command's exit status.
step() {
    local log=$1 text=$2 began=$SECONDS status=0 ticker
    shift 2
    say "$text"
    heartbeat "$text" &
    ticker=$!
    "$@" >>"$log" 2>&1 </dev/null || status=$?
    kill "$ticker" 2>/dev/null || true
    wait "$ticker" 2>/dev/null || true
    if [ "$status" -ne 0 ]; then
        warn "failed: $text; the end of $log:"
        tail -n 25 "$log" >&2
        return "$status"
    fi
    [ $((SECONDS - began)) -lt 2 ] || note "done in $((SECONDS - began)) s"
}

# Runs a command as root, by sudo where needed; require_root has been called before.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

# $1: what root is needed for. Asks for sudo's password now, not in the middle of a logged command.
require_root() {
    [ "$(id -u)" -ne 0 ] || return 0
    command -v sudo >/dev/null || fail "only root can $1, and there is no sudo: run scripts/bootstrap as root"
    sudo -n true 2>/dev/null && return 0
    [ -t 0 ] || fail "sudo wants a password to $1: run scripts/bootstrap in a terminal, or as root"
    say "sudo asks for your password, to $1"
    sudo -v || fail "no root rights: cannot $1"
}

# Prints the path of a Consul agent: CONSUL_BIN, else the one on PATH, else the one that bootstrap unpacked.
find_consul() {
    local candidate
    if [ -n "${CONSUL_BIN:-}" ]; then
        [ -x "$CONSUL_BIN" ] || fail "CONSUL_BIN is no program: $CONSUL_BIN"
        printf '%s\n' "$CONSUL_BIN"
        return
    fi
    candidate=$(command -v consul || true)
    [ -n "$candidate" ] || candidate=$TOOLS_DIR/consul/usr/bin/consul
    [ -x "$candidate" ] || return 1
    printf '%s\n' "$candidate"
}
