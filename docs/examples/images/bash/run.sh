# The runtime: takes requests from the node, runs the function of the user's file, reports what became of it.
# Its own names begin with quell_, so that the file may have any other.
# The protocol is docs/runtime-protocol.md. Needs bash 4, head, wc, cat and mktemp.

api=/v1/runtime
node=/dev/tcp/${RUNTIME_API_ADDR/://}
file=$RUNTIME_CODE_ROOT/${RUNTIME_HANDLER%.*}.sh
handler=${RUNTIME_HANDLER##*.}

# quell_exchange METHOD PATH [FILE [HEADER]]: sends the file, leaves the head of the answer in `status` and `headers` and
# its body to be read from descriptor 3.
quell_exchange() {
    local length=0 line
    [ -n "$3" ] && length=$(wc -c <"$3")
    exec 3<>"$node" || exit 1 # the node is gone
    printf '%s %s%s HTTP/1.1\r\nHost: node\r\nConnection: close\r\nContent-Type: application/json\r\n' "$1" "$api" "$2" >&3
    printf '%sContent-Length: %d\r\n\r\n' "${4:+$4$'\r\n'}" "$length" >&3
    [ "$length" -gt 0 ] && cat "$3" >&3
    read -r _ status line <&3 || exit 1
    declare -gA headers=()
    while read -r line <&3 && line=${line%$'\r'} && [ -n "$line" ]; do
        local name=${line%%:*}
        headers[${name,,}]=${line#*: }
    done
}

# quell_report PATH FILE: tells the node; what it answers changes nothing here.
quell_report() {
    quell_exchange POST "$1" "$2" "${invocation:+X-Quell-Invocation-Id: $invocation}"
    exec 3>&-
}

# quell_complain PATH TYPE MESSAGE: the same for an error. The message has nothing in it that JSON would want escaped.
quell_complain() {
    printf '{"errorType": "%s", "errorMessage": "%s"}' "$2" "$3" >"$scratch/error"
    quell_report "$1" "$scratch/error"
}

quell_serve() {
    local scratch request invocation status
    scratch=$(mktemp -d) || exit 1
    while :; do
        quell_exchange GET /invocation/request
        [ "$status" = 200 ] || exit 1
        request=${headers[x-cff-request-id]} invocation=${headers[x-quell-invocation-id]}
        head -c "${headers[content-length]}" <&3 >"$scratch/event"
        exec 3>&-
        # In a shell of its own: what it sets, traps and exits with is its own business.
        (REQUEST_ID=$request AUTH_TOKEN=${headers[x-cff-auth-token]} "$handler") <"$scratch/event" >"$scratch/result"
        status=$?
        if [ "$status" = 0 ]; then
            quell_report "/invocation/response/$request" "$scratch/result"
        else
            quell_complain "/invocation/error/$request" HandlerFailed "$handler ended with status $status"
        fi
        request=
    done
}

# SIGTERM comes for a cancel, whose handler bash lets finish first: its own trap may clean up within the grace;
# or to an idle instance that is to run its pre-stop handler.
quell_leave() {
    if [ -n "$PRE_STOP_HANDLER" ] && [ -z "$request" ]; then
        "${PRE_STOP_HANDLER##*.}" </dev/null
        exit
    fi
    exit 143
}

scratch=$(mktemp -d) || exit 1
if ! [ -r "$file" ]; then
    quell_complain /init/error NoFile "there is no ${file##*/} in the package"
    exit 1
fi
. "$file"
for name in "$handler" ${RUNTIME_INITIALIZER_HANDLER:+"${RUNTIME_INITIALIZER_HANDLER##*.}"}; do
    if ! declare -F "$name" >/dev/null; then
        quell_complain /init/error NoFunction "there is no function $name in ${file##*/}"
        exit 1
    fi
done
if [ -n "$RUNTIME_INITIALIZER_HANDLER" ] && ! "${RUNTIME_INITIALIZER_HANDLER##*.}" </dev/null; then
    quell_complain /init/error InitializerFailed "the initializer failed"
    exit 1
fi
trap quell_leave TERM
if [ "$QUELL_CONCURRENCY" = 1 ]; then
    quell_serve
else
    for ((at = 0; at < QUELL_CONCURRENCY; at++)); do quell_serve & done
    wait
fi
