#!/bin/sh
# coverage.sh SIM [SEEDS]: which lines of the server SEEDS simulated runs reach; SIM is built for coverage.
# LINES=1 prints those that they do not.
# Settings: LLVM, a suffix of llvm-profdata and llvm-cov ("-14").
set -eu
export LC_ALL=C
sim=$1 seeds=${2:-2000} LLVM=${LLVM-}
out=build/sim-coverage
files='engine/(stream.*|conn|loop|op|buffers|slice|inbox|listener)\.c|tools/(serving|downstream)\.c'
files="$files"'|proto/(h1_server.*|h1_client.*|h1_write|h1_chunk|body|exchange|tunnel)\.c'
files="$files"'|actions/(proxy/proxy(_forward|_head)?|upstream/upstream_(claim|conn|pool))\.c'
rm -rf "$out"
mkdir -p "$out"
LLVM_PROFILE_FILE=$PWD/$out/%p.raw "$sim" --count "$seeds" --jobs "$(nproc)"
"llvm-profdata$LLVM" merge -sparse -o "$out/profile" "$out"/*.raw
"llvm-cov$LLVM" export -format=lcov -instr-profile="$out/profile" "$sim" >"$out/lcov"
awk -v lines="${LINES-}" -v files="^($files)\$" -v here="$PWD/" '
    /^SF:/ { file = substr($0, 4); sub(here, "", file); sub(/^\.\//, "", file); on = file ~ files }
    on && lines && /^DA:[0-9]+,0$/ { at = substr($0, 4); sub(/,0$/, "", at); print file ":" at }
    on && /^LF:/ { total = substr($0, 4) }
    on && /^LH:/ {
        hit = substr($0, 4)
        printf "%-30s %5d lines %6.1f %%\n", file, total, total ? 100 * hit / total : 0
    }' "$out/lcov"
