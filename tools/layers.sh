#!/bin/sh
# Fails when a file includes upward, or a library that only one file may know.
bad=0

# rule FOLDER PATTERN: what the folder's files may include in quotes, always by path from the top.
rule() {
    grep -nE '^ *# *include *"' "$1"/*.[ch] /dev/null 2>/dev/null |
        grep -vE "include *\"($2)" | sed 's/^/layer: /' | grep . && bad=1
}
rule engine  'engine/'
rule proto   'proto/|engine/'
rule filters 'filters/|proto/|engine/'
rule actions 'actions/|proto/|engine/'
rule router  'router/|filters/filter\.h"|actions/action\.h"|proto/|engine/'

# only HEADER PATTERN: the one file (or kind of file) of the product that may include <HEADER>.
only() {
    grep -nE "^ *# *include *<$1" engine/*.[ch] proto/*.[ch] filters/*.[ch] actions/*.[ch] \
        router/*.[ch] tools/*.[ch] /dev/null 2>/dev/null |
        grep -vE "^($2):" | sed 's/^/library: /' | grep . && bad=1
}
only 'liburing'  'engine/uring\.c|engine/uring_compat\.h'
only 'wolfssl/'  'engine/tls[a-z0-9_]*\.c'
only 'yaml\.h'   'router/config_yaml\.c'
only 'ares'      'engine/resolver_ares\.c'
only 'seccomp\.h' 'tools/seccomp\.c'

# Nothing of the product may depend on what tests it.
grep -nE '^ *# *include *"(tests|fuzz|bench|\.\.)/' engine/*.[ch] proto/*.[ch] filters/*.[ch] \
    actions/*.[ch] router/*.[ch] tools/*.[ch] /dev/null 2>/dev/null | sed 's/^/layer: /' |
    grep . && bad=1
exit $bad
