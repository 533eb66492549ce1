#!/bin/sh
# Every test there is, against the binaries that it builds, in one count.
#
#   unit         tests/unit by Criterion: ASan+UBSan; those with threads again under TSan; in a debug build what the
#                leak check's own means are in the way of
#   replay       fuzz/corpus/X through fuzz/fuzz_X, built by gcc with ASan+UBSan
#   sim          whole servers on a simulated network (tests/sim), ASan+UBSan
#   instructions of operations and whole requests of the release build, against bench/instructions.tsv
#   wire         pytest against the ASan+UBSan server
#   integration  the same: peers, life (in two parts)
#   fault        the same: failing calls, names and networks
#   worker       a part of wire again, through a master and its worker (as root)
#
# Whole logs are kept in build/test-logs; the end of one is shown when something in it failed. The
# last line is "N passed, N failed"; exit code 0 only when nothing failed and something passed.
# Time limits end what hangs alone: they are several times of what a busy machine takes.
# Settings: MAKE, JOBS.
set -u
export LC_ALL=C
MAKE=${MAKE:-make} JOBS=${JOBS:-$(nproc)}
logs=build/test-logs
passed=0 failed=0
rm -rf "$logs"
mkdir -p "$logs"

# Sanitizers end a process at the first finding, with a stack.
export ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1:print_legend=0
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1

# add PASSED FAILED NAME LOG: counts, and shows the end of the log of what failed.
add() {
    passed=$((passed + $1)) failed=$((failed + $2))
    if [ "$2" -gt 0 ]; then
        echo "---- FAIL $3 ($4)"
        tail -n 40 "$4"
        echo '----'
    fi
}

# began NAME, then ended: one line per kind.
began() {
    name=$1 start=$(date +%s) before_passed=$passed before_failed=$failed
}
# ended [WHEN]
ended() {
    printf '  %-12s %5d ok %5d bad %5d s\n' "$name" $((passed - before_passed)) \
        $((failed - before_failed)) $((${1:-$(date +%s)} - start))
}

# build MODE GOAL [VARIABLE...]: a build that fails is one failed test; what did get built is still run. Tests build too:
# two makes at once in one folder would spoil each other's files.
build() {
    log=$logs/build-$1-${2##*/}.log mode=$1 goal=$2
    shift 2
    flock "build/gcc-$mode.lock" "$MAKE" --no-print-directory -k -j"$JOBS" CC=gcc MODE="$mode" "$goal" "$@" >"$log" 2>&1 ||
        add 0 1 "build of $goal, MODE=$mode" "$log"
}

# criterion LOG CODE NAME: counts by the closing line; a run without one, or that fails behind it
# (a leak at exit), is one failed test.
criterion() {
    set -- "$@" "$(sed -nE 's/.*Synthesis: Tested: ([0-9]+) \| Passing: ([0-9]+) .*/\1 \2/p' "$1" |
        tail -n 1)"
    tested=${4% *} passing=${4#* }
    if [ -z "$4" ]; then
        add 0 1 "$3: no result, exit code $2" "$1"
    elif [ "$2" -ne 0 ] && [ "$tested" -eq "$passing" ]; then
        add "$passing" 1 "$3: exit code $2" "$1"
    else
        add "$passing" $((tested - passing)) "$3" "$1"
    fi
}

# Those of $units that can start a thread: where none is, TSan has nothing to find. What is not built has failed.
threaded() {
    for test in $units; do
        if nm -D "build/gcc-asan/tests/unit/$test" 2>/dev/null | grep -q ' U pthread_create'; then
            echo "$test"
        fi
    done
}

# unit MODE TESTS [WRAPPER...]
unit() {
    mode=$1 tests=$2
    shift 2
    began "unit $mode"
    build "$mode" unit-build UNIT="$(for test in $tests; do printf 'build/gcc-%s/tests/unit/%s ' "$mode" "$test"; done)"
    # Several at once, for many wait. What was not built is counted already.
    # shellcheck disable=SC2016 # that shell expands it
    echo "$tests" | xargs -P "$JOBS" -I TEST sh -c '
        [ ! -x "$1" ] || { log=$2; shift 2; timeout 900 "$@" >"$log" 2>&1; echo $? >"$log.code"; }' \
        - "build/gcc-$mode/tests/unit/TEST" "$logs/$mode-TEST.log" \
        "$@" "build/gcc-$mode/tests/unit/TEST"
    for test in $tests; do
        log=$logs/$mode-$test.log
        [ ! -e "$log.code" ] || criterion "$log" "$(cat "$log.code")" "$test, MODE=$mode"
    done
    ended
}

replay() {
    began replay
    build asan replay
    for source in fuzz/fuzz_*.c; do
        [ -f "$source" ] || continue
        target=${source##*/fuzz_}
        target=${target%.c}
        log=$logs/replay-$target.log
        if timeout 900 "build/gcc-asan/fuzz/fuzz_$target" "fuzz/corpus/$target" >"$log" 2>&1; then
            add 1 0 "$target" "$log"
        else
            add 0 1 "replay of fuzz/corpus/$target" "$log"
        fi
    done
    ended
}

# 1,000 seeds, and some of them twice, which must be the same run.
sim() {
    began sim
    build asan sim-build
    for run in "--count 1000 --jobs $JOBS" "--count 50 --twice"; do
        log=$logs/sim-${run##* }.log
        # shellcheck disable=SC2086 # options
        if timeout 1200 build/gcc-asan/tests/sim/sim $run >"$log" 2>&1; then
            add 1 0 sim "$log"
        else
            add 0 1 "sim $run: run the seed by make sim MODE=asan SEED=n VERBOSE=1" "$log"
        fi
    done
    ended
}

# Each row of the table is a test.
instructions() {
    began instructions
    build release all
    build release micro-build
    log=$logs/instructions.log
    timeout 1200 /usr/bin/python3 -B bench/instructions_check.py >"$log" 2>&1
    # shellcheck disable=SC2046 # words
    set -- $(sed -nE 's/^([0-9]+) passed, ([0-9]+) failed$/\1 \2/p' "$log") # without a result: none
    add "${1:-0}" "${2:-1}" instructions "$log"
    grep -E '^(skipped|table is stale)' "$log" | sed 's/^/  instructions /'
    ended
}

# The number in attribute $1 of pytest's report.
reported() {
    sed -nE "s/.*<testsuite [^>]*\\<$1=\"([0-9]+)\".*/\\1/p" "$report" | head -n 1
}

# start NAME FILE...: a run of pytest, which `finish NAME` counts. The suites choose the backends themselves: a
# test that concerns both runs for each.
start() {
    (
        log=$logs/$1.log report=$logs/$1.xml begun=$(date +%s)
        shift
        ANYGATE=$PWD/build/gcc-asan/anygate NODE_PATH=$PWD/build/npm/node_modules \
            PYTHONDONTWRITEBYTECODE=1 timeout 2700 /usr/bin/python3 -m pytest -q \
            -p no:cacheprovider --junitxml="$report" "$@" >"$log" 2>&1
        echo "$? $begun $(date +%s)" >"$log.code"
    ) &
}

finish() {
    began "$1"
    log=$logs/$1.log report=$logs/$1.xml
    read -r code start end <"$log.code"
    if [ -s "$report" ]; then
        bad=$(($(reported failures) + $(reported errors)))
        good=$(($(reported tests) - bad - $(reported skipped)))
        [ "$code" -eq 0 ] || [ "$bad" -gt 0 ] || bad=1
        add "$good" "$bad" "$name" "$log"
        [ "$(reported skipped)" -eq 0 ] || echo "  $name skipped $(reported skipped)"
        # Tests that a timeout was too quick for, and that ran once more (tests/waiting.py).
        sed -nE 's/.*UserWarning: (tried again: .*)/'"  $name"' \1/p' "$log" | cut -c 1-160
    else
        add 0 1 "$name: no result, exit code $code" "$log"
    fi
    ended "$end"
}

# What crosses the wire comes once more, by a worker without rights whose system calls are filtered.
start_python() {
    build asan all
    build debug all # what measures memory
    start wire tests/wire
    start integration tests/integration/test_[a-l]*.py
    start integration-2 tests/integration/test_[m-z]*.py
    start fault tests/fault
    if [ "$(id -u)" -eq 0 ]; then
        export ANYGATE_SERVER__USER=nobody
        start worker tests/wire/test_answers.py tests/wire/test_paths.py tests/wire/test_proxy.py
        unset ANYGATE_SERVER__USER
    fi
}

finish_python() {
    wait
    finish wire
    finish integration
    finish integration-2
    finish fault
    [ ! -e "$logs/worker.log" ] || finish worker
}

# They wait more than they work: what works most, builds above all, goes on beside them, behind them in rank.
start_python
renice -n 10 $$ >/dev/null
units=$(for source in tests/unit/test_*.c; do basename "$source" .c; done)
unit asan "$units"
# The kernel's wide address randomisation can leave ThreadSanitizer no room for its shadow.
if setarch -R true 2>/dev/null; then
    unit tsan "$(threaded)" setarch -R
else
    unit tsan "$(threaded)"
fi
unit debug test_confine
replay
sim
instructions
finish_python
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
