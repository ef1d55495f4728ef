# quell invoke words --event '{"text": "one two three"}'

count() {
    local words
    words=$(wc -w) || return 1
    echo "counted $words words for $REQUEST_ID" >&2 # the log
    printf '{"words": %d}\n' "$words"
}
