#!/bin/sh
# coverage.sh BINARIES: replays every corpus through the targets built for coverage in that folder, and
# prints the line coverage of each file under test. Exit code 1 when one is below the minimum.
# Settings: LLVM, a suffix of llvm-profdata and llvm-cov ("-14"); MORE, a folder of further corpora.
set -eu
export LC_ALL=C
binaries=$1 minimum=90 LLVM=${LLVM-}
out=build/fuzz-coverage
mkdir -p "$out"

# target: the files that it tests
table='
h1_request: proto/h1_parse.c
h1_response: proto/h1_parse_response.c proto/h1_head.c
h1_chunk: proto/h1_chunk.c
h1_connection: proto/h1_server.c proto/h1_server_request.c proto/h1_server_answer.c proto/exchange.c
    proto/body.c
h2_connection: proto/h2_conn.c proto/h2_input.c proto/h2_control.c proto/h2_streams.c proto/h2_send.c
    proto/h2_server.c proto/h2_server_request.c proto/h2_server_answer.c
h2_client: proto/h2_client.c
uri: proto/uri.c
certs: engine/tls_x509.c engine/tls_pem.c engine/tls_ocsp.c
h2_fields: proto/h2_fields_read.c proto/h2_fields_write.c proto/h2_priority.c proto/head.c
tls_hello: engine/tls_hello.c
dns_srv: engine/dns_srv.c
proxy_protocol: proto/proxy_protocol.c proto/proxy_protocol_write.c
hpack: proto/hpack_decode.c proto/hpack_encode.c proto/hpack_table.c proto/hpack_huffman.c
dsl: router/dsl.c router/dsl_pattern.c router/dsl_action.c
config_json: router/config_json.c
config_yaml: router/config_yaml.c router/config_prescan.c router/config_expand.c'

# report TARGET FILES...: one line a file: target, file, lines, lines not run, percent.
report() {
    target=$1 binary=$binaries/fuzz_$1
    shift
    set -- "$target" "$@"
    LLVM_PROFILE_FILE=$PWD/$out/$target.raw "$binary" "fuzz/corpus/$target" \
        ${MORE:+"$MORE/$target"} >"$out/$target.log" 2>&1 || {
        tail -n 5 "$out/$target.log" >&2
        return 1
    }
    "llvm-profdata$LLVM" merge -sparse -o "$out/$target.profile" "$out/$target.raw"
    shift
    "llvm-cov$LLVM" export -format=lcov -instr-profile="$out/$target.profile" "$binary" \
        >"$out/$target.lcov"
    for file; do
        awk -v target="$target" -v file="$file" -v minimum="$minimum" '
            /^SF:/ { on = substr($0, length($0) - length(file)) ~ "[:/]" file }
            on && /^LF:/ { lines = substr($0, 4) }
            on && /^LH:/ { hit = substr($0, 4) }
            END {
                percent = lines ? 100 * hit / lines : 0
                printf "%-14s %-28s %5d lines %6.1f %%%s\n", target, file, lines, percent,
                    percent < minimum ? "  below " minimum " %" : ""
                exit percent < minimum
            }' "$out/$target.lcov" || failed=1
    done
}

failed=0
for target in $(printf '%s\n' "$table" | sed -n 's/^\([a-z0-9_]*\):.*/\1/p'); do
    [ -x "$binaries/fuzz_$target" ] || continue
    # shellcheck disable=SC2046 # a list of words
    report "$target" $(printf '%s\n' "$table" | awk -v t="$target:" \
        '/^[a-z0-9_]*:/ { on = $1 == t; sub(/^[^:]*:/, "") } on')
done
exit $failed
