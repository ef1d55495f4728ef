# The function of the tests of the bash image.

answer() {
    local what
    what=$(cat)
    case $what in
    *fail*) return 7 ;;
    *exit*) exit 3 ;;
    *wait*)
        trap 'echo cleaned >&2; exit 1' TERM
        echo begun >&2
        sleep 600 >/dev/null & wait # so that the trap is not held up by the sleep
        ;;
    *stubborn*)
        trap '' TERM
        echo begun >&2
        setsid sleep 600 >/dev/null &
        while :; do sleep 600; done
        ;;
    *) printf '%s' "$what" ;;
    esac
}

begin() {
    echo "begins" >&2
}

farewell() {
    echo "leaves" >&2
}
