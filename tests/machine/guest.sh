#!/bin/bash
# Runs in the virtual machine that .ci/machine starts, as a service of its systemd: the package, below a real one. Says a line
# for each thing that holds; the first that does not is the last line.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 QUELL_DATA=/var/lib/quell DEBIAN_FRONTEND=noninteractive
# Everything is emulated and some twenty times slower than it will ever be.
LIMIT_S=120
count=0
check() {
    local what=$1
    shift
    if ! "$@" >/tmp/out 2>&1; then
        echo "FAILED: $what: $*"
        tail -n 20 /tmp/out
        journalctl -u quell --no-pager -o cat -n 20
        exit 1
    fi
    count=$((count + 1))
    echo "ok: $what"
}
# For what nothing tells of: looks again until it holds.
becomes() {
    local end=$((SECONDS + LIMIT_S))
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.2
    done
}
of() { systemctl show quell -p "$1" --value; }
active() { [ "$(of ActiveState)" = active ]; }
get() {
    python3 - "$1" <<'GET'
import json, sys, urllib.request
client = json.load(open("/var/lib/quell/client.json"))
request = urllib.request.Request(client["endpoint"] + sys.argv[1], headers={"X-Auth-Token": client["token"]})
print(urllib.request.urlopen(request, timeout=100).read().decode())
GET
}
service=/sys/fs/cgroup/system.slice/quell.service

everything_contains() {
    get /quell/v1/node | python3 -c '
import json, sys
node = json.load(sys.stdin)
means = {row["name"]: row for row in node["containment"] + node["limits"]}
wanted = ["cgroup v2 leaf", "PID namespace", "fork stop", "another user", "network namespace", "memory", "processes"]
wrong = [means[name] for name in wanted if not means[name]["active"]]
print(wrong)
sys.exit(bool(wrong))'
}
answers() { quell invoke "$1" --event '{"name": "machine"}' | grep -q machine; }
below_the_service() { systemd-cgls --no-pager -u quell.service | grep -q 'bootstrap.py'; }
tree() {
    request=$(quell invoke fanout --async --event '{"depth": 2, "width": 2, "sleep_s": 300}') &&
        becomes grown "$1"
}
grown() { [ "$(quell tree "$request" --output json | grep -o '"running"' | wc -l)" -ge "$1" ]; }
starved() { quell invoke hog 2>&1 | grep 'FSS.4205.*memory.events'; }
killed() {
    main=$(of MainPID)
    kill -KILL "$main"
    becomes lives_again "$main"
}
lives_again() { active && [ "$(of MainPID)" != "$1" ] && [ "$(of MainPID)" != 0 ]; }
reloads() {
    main=$(of MainPID)
    systemctl reload quell && active && [ "$(of MainPID)" = "$main" ] && [ "$(of StatusText)" = "listening on http://127.0.0.1:7171" ]
}
restarts_and_refuses_nobody() {
    python3 - <<'ASK' &
import os, sys, urllib.error, urllib.request
open("/tmp/asking", "w")
served = 0
while os.path.exists("/tmp/asking") or served < 10:
    try:
        urllib.request.urlopen("http://127.0.0.1:7171/quell/v1/health", timeout=100)
        served += 1
    except urllib.error.HTTPError as drains:
        assert drains.code == 503, drains
ASK
    local asking=$!
    becomes test -e /tmp/asking
    systemctl restart quell && systemctl restart quell
    rm /tmp/asking
    wait $asking
}
hangs() {
    mkdir -p /run/systemd/system/quell.service.d
    printf '[Service]\nWatchdogSec=5s\n' >/run/systemd/system/quell.service.d/soon.conf
    systemctl daemon-reload
    systemctl restart quell || return 1
    local main
    main=$(of MainPID)
    sleep 12 # longer than it may be silent
    [ "$(of MainPID)" = "$main" ] || { echo "it was restarted though it works"; return 1; }
    kill -STOP "$main"
    becomes lives_again "$main" && journalctl -u quell --no-pager -o cat | grep -q 'Watchdog timeout'
}
stops_for_good() { systemctl stop quell.socket quell.service && ! active && [ ! -e "$service" ]; }
starts_by_a_connection() {
    systemctl start quell.socket
    ! active && python3 -c 'import urllib.request; urllib.request.urlopen("http://127.0.0.1:7171/quell/v1/health", timeout=100)' && active
}
removed() { dpkg -r quell && ! systemctl is-active quell.service quell.socket && [ -f /var/lib/quell/quell.db ]; }
installed_again() { dpkg -i /quell.deb && becomes active && systemctl is-active quell.socket; }
purged() { dpkg --purge quell && [ ! -e /var/lib/quell ] && [ ! -e /etc/quell ] && ! systemctl cat quell.service; }

echo "machine: Linux $(uname -r), $(systemctl --version | head -n 1), $(stat -fc %T /sys/fs/cgroup)"
check "cgroup v2 alone" test "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs
check "it installs" dpkg -i /quell.deb
check "and serves" becomes active
check "with every layer and limit" everything_contains
check "functions are deployed" eval 'quell deploy /srv/hello && quell deploy /srv/fanout && quell deploy /srv/hog && quell deploy /srv/hello-http'
check "a function answers" answers hello
check "one with a network of its own answers" answers hello-http
check "they run below the service" below_the_service
check "a tree grows" tree 3
check "and is stopped by asking" quell cancel "$request" --recursive
check "another grows" tree 3
check "and is stopped by force" quell cancel "$request" --recursive --force
check "the memory controller holds a function to its limit" starved
check "a third tree grows" tree 3
check "a killed node lives again" killed
check "and takes up what it had accepted" becomes grown 1
check "which is stopped" quell cancel "$request" --recursive --force
check "it reloads" reloads
check "two restarts refuse nobody" restarts_and_refuses_nobody
check "one that hangs is restarted by the watchdog" hangs
check "it still answers" answers hello
check "it stops for good" stops_for_good
check "a connection starts it" starts_by_a_connection
check "it is removed" removed
check "it is installed again and runs" installed_again
check "with what it had" answers hello
check "it is purged" purged
echo "machine: $count checks passed"
