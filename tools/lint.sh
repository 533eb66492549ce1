#!/bin/sh
# The static checks; `make lint` calls this once for the tree and, in parallel, once for each file
# that changed (or whose headers did) since it last passed.
#
#   tools/lint.sh tree FLAGS...              format of all C files, cppcheck of those outside tests/
#   tools/lint.sh file PATH STAMP FLAGS...   one .c or .h; writes STAMP, and STAMP's .d for make
#
# FLAGS are the compiler's base flags, with gcc's warnings in `file`; CLANG_WARN: clang's own.
set -eu

tree() {
    find . \( -path ./build -o -path ./.git \) -prune -o -name '*.[ch]' -print0 |
        xargs -0 clang-format --dry-run -Werror
    # It parses without the system's headers, so Criterion's macros, and with them tests/, are
    # beyond it.
    mkdir -p build/lint/cppcheck
    find . \( -path ./build -o -path ./.git -o -path ./tests \) -prune -o -name '*.c' -print \
        >build/lint/files
    cppcheck -q -j"$(nproc)" --cppcheck-build-dir=build/lint/cppcheck --error-exitcode=1 \
        --enable=warning,portability --inline-suppr -I. -D__GNUC__=12 \
        -DAG_WOLFSSL=1 --file-list=build/lint/files
}

# What only gcc knows is not passed to clang-tidy and clang.
clang_flags() {
    for flag; do
        case $flag in
        -Wduplicated-* | -Wlogical-op | -Wcast-align=strict | -Walloca | -Wjump-misses-init) ;;
        *) printf '%s\n' "$flag" ;;
        esac
    done
}

file() {
    path=$1 stamp=$2 analyzer=-fanalyzer checks=
    shift 2
    case $path in
    tests/*) # The analyzers take ten seconds and more for each, and a test that reads NULL fails. Building them
        # has gcc's warnings.
        set -- "$@" -Wno-conversion -Wno-cast-qual -Wno-frame-larger-than
        analyzer='-fsyntax-only' checks='-clang-analyzer-*'
        ;;
    esac
    case $path in
    *.h) # alone: as the first and only include of a file
        echo "#include \"$path\"" | gcc "$@" -fsyntax-only -MMD -MP -MT "$stamp" \
            -MF "${stamp%.ok}.d" -xc -
        ;;
    *.c)
        # shellcheck disable=SC2086 # empty is nothing
        gcc "$@" -O2 $analyzer -MMD -MP -MT "$stamp" -MF "${stamp%.ok}.d" -c -o /dev/null "$path"
        # shellcheck disable=SC2046,SC2086 # lists of words
        set -- $(clang_flags "$@") ${CLANG_WARN-}
        clang "$@" -fsyntax-only "$path"
        clang-tidy --quiet ${checks:+--checks="$checks"} "$path" -- "$@" 2>"$stamp.log" || {
            grep -vE '^[0-9]+ warnings? (generated|treated)' "$stamp.log" >&2 || true
            exit 1
        }
        rm -f "$stamp.log"
        ;;
    esac
    : >"$stamp"
}

verb=${1-}
[ $# -eq 0 ] || shift
case $verb in
tree | file) "$verb" "$@" ;;
*)
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
