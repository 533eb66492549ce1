#!/bin/sh
# Fails when a file includes upward, or a library that only one file may know.
bad=0

product='engine proto filters actions router tools'

# grep in the C files of folders; what is found is shown behind NAME and counts as bad.
in_files() {
    find "$@" -name '*.[ch]' -exec grep -nE "$pattern" /dev/null {} + | grep -vE "$allowed" |
        sed "s/^/$name: /" | grep . && bad=1
}

# rule FOLDER PATTERN: what the folder's files may include in quotes, always by path from the top.
rule() {
    name=layer pattern='^ *# *include *"' allowed="include *\"($2)"
    in_files "$1"
}
rule engine  'engine/'
rule proto   'proto/|engine/'
rule filters 'filters/|proto/|engine/'
rule actions 'actions/|proto/|engine/'
rule actions/upstream 'actions/upstream/|actions/action\.h"|proto/|engine/'
rule actions/static '(actions/(static/)?[a-z_]+\.h"|proto/|engine/)'
rule router  'router/|filters/filter\.h"|actions/action\.h"|proto/|engine/'

# only HEADER PATTERN: the one file (or kind of file) of the product that may include <HEADER>.
only() {
    name=library pattern="^ *# *include *<$1" allowed="^($2):"
    # shellcheck disable=SC2086 # words
    in_files $product
}
only 'liburing'  'engine/uring_impl\.h'
only 'wolfssl/'  'engine/tls[a-z0-9_]*\.c'
only 'yaml\.h'   'router/config_yaml\.c'
only 'ares'      'engine/resolver_ares\.c'
only 'seccomp\.h' 'tools/seccomp\.c'

# Nothing of the product may depend on what tests it.
name=layer pattern='^ *# *include *"(tests|fuzz|bench|\.\.)/' allowed='^$'
# shellcheck disable=SC2086 # words
in_files $product
exit $bad
