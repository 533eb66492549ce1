#!/bin/sh
# A release whose code is laid out by what a server does under load (`make pgo`): builds one that counts, trains it
# with bench/train.py, and builds build/gcc-pgo/anygate by the counts. `make MODE=pgo install` installs that.
set -eu
MAKE=${MAKE:-make}
JOBS=${JOBS:-$(nproc)}
counting=build/gcc-train

"$MAKE" --no-print-directory -j"$JOBS" CC=gcc MODE=train all
find "$counting" -name '*.gcda' -delete
echo "  TRAIN $counting/anygate"
/usr/bin/python3 bench/train.py --binary "$counting/anygate"
[ -n "$(find "$counting" -name '*.gcda' | head -n 1)" ] || {
    echo "pgo: the training has left no counts" >&2
    exit 1
}
touch "$counting/trained"
"$MAKE" --no-print-directory -j"$JOBS" CC=gcc MODE=pgo all
