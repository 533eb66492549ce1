#!/bin/sh
# Gets what a build or the tests need. Says nothing and returns at once when nothing is missing.
#
#   tools/deps.sh build      packages to build and run, and wolfSSL
#   tools/deps.sh test       the same, and packages for the tests and the static checks
#   tools/deps.sh bench      what bench/ compares with and loads with, and build's
#   tools/deps.sh wolfssl    wolfSSL alone; installs no package
#
# Packages are installed by root with apt-get; anybody else is told the one command to run.
# Settings: WOLFSSL=source|system|none, DEPS=folder that keeps what is built here (build/deps).
set -eu
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
unset MAKEFLAGS MFLAGS MAKELEVEL # the caller's MODE and CC are not meant for wolfSSL's own make
WOLFSSL=${WOLFSSL:-source}
DEPS=${DEPS:-build/deps}

build_packages='gcc make libc6-dev pkg-config liburing-dev libxxhash-dev libyaml-dev libc-ares-dev
    libseccomp-dev zlib1g-dev libbrotli-dev libzstd-dev'
source_packages='autoconf automake libtool dpkg-dev'
test_packages='libcriterion-dev clang clang-format clang-tidy libclang-rt-dev llvm cppcheck valgrind
    curl nginx haproxy nghttp2-client openssl libssl-dev gnutls-bin chromium procps iproute2
    python3 python3-pytest python3-grpcio python3-h2 python3-hpack python3-httpx
    python3-websockets h2o wrk'
bench_packages='nginx haproxy h2o wrk valgrind strace nghttp2-client openssl libssl-dev python3'
playwright=1.55.1 # the last line of releases that runs on Debian 12's node

wolfssl_flags='--enable-sp --enable-sp-asm --enable-sp-math --enable-alpn --enable-sni
    --enable-session-ticket --enable-ocspstapling --enable-tls13 --enable-curve25519
    --enable-ed25519 --enable-keygen --enable-static --disable-shared --disable-examples
    --disable-crypttests --disable-benchmark --disable-oldtls --disable-dh --disable-md5
    --disable-enc-then-mac --disable-sys-ca-certs --enable-altcertchains'
case $(uname -m) in
x86_64) wolfssl_flags="$wolfssl_flags --enable-intelasm --enable-aesni" ;;
aarch64) wolfssl_flags="$wolfssl_flags --enable-armasm" ;;
esac
wolfssl_cflags='-O3 -fPIC -fstack-protector-strong -fstack-clash-protection -D_FORTIFY_SOURCE=2'
# What has no flag: AEAD suites alone; the peer's certificate is always shown to our callback, which judges
# it; randomness from our callback (getrandom needs no /dev); alerts that say more; TLS 1.3 that middleboxes
# let pass; no global table of sessions for clients, a hook for our own for servers; no keys of its own for tickets.
for define in AEAD_ONLY ALWAYS_VERIFY_CB EXTRA_ALERTS TLS13_MIDDLEBOX_COMPAT NO_DEF_TICKET_ENC_CB; do
    wolfssl_cflags="$wolfssl_cflags -DWOLFSSL_$define"
done
for define in WC_RNG_SEED_CB NO_CLIENT_CACHE NO_SESSION_CACHE_REF HAVE_EXT_CACHE; do
    wolfssl_cflags="$wolfssl_cflags -D$define"
done

die() {
    echo "deps: $*" >&2
    exit 1
}

# logged NAME COMMAND...: runs quietly; the log's end is shown when it fails.
logged() {
    name=$1
    shift
    mkdir -p "$DEPS"
    "$@" >"$DEPS/$name.log" 2>&1 || {
        tail -n 20 "$DEPS/$name.log" >&2
        return 1
    }
}

# The packages among $@ that are not installed, on one line.
missing() {
    have=" $(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null |
        sed -n 's/^installed //p' | tr '\n' ' ')"
    for package; do
        case $have in
        *" $package "*) ;;
        *) printf '%s ' "$package" ;;
        esac
    done
}

apt_install() {
    apt-get -qy -o DPkg::Lock::Timeout=600 install --no-install-recommends "$@"
}

install_packages() {
    want=$(missing "$@")
    [ -n "$want" ] || return 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "deps: packages are missing; this installs them:" >&2
        echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends $want" >&2
        exit 1
    fi
    echo "  APT $want"
    # A server installed for the tests must not start to serve on this machine.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    # shellcheck disable=SC2086 # a list of words, here and wherever packages or flags are passed
    logged apt-install apt_install $want 2>/dev/null || {
        logged apt-update apt-get -q -o DPkg::Lock::Timeout=600 update || die 'apt-get update failed'
        logged apt-install apt_install $want || die "cannot install: $want"
    }
}

# apt-get with sources, lists and cache of the build's own: the system's stay as they are.
# Signatures are checked as always.
own_apt() {
    apt-get -q -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$apt/sources" \
        -o Dir::State::lists="$apt/lists" -o Dir::Cache="$apt/cache" \
        -o APT::Get::AllowUnauthenticated=false -o Acquire::AllowInsecureRepositories=false "$@"
}

# The system's own apt sources, in both formats, turned from binary to source packages.
write_sources() {
    mkdir -p "$apt/sources" "$apt/lists/partial" "$apt/cache/archives/partial"
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ -f "$file" ] && sed -nE 's/^[[:space:]]*deb(-src)?[[:space:]]+/deb-src /p' "$file"
    done | sort -u >"$apt/sources/system.list"
    for file in /etc/apt/sources.list.d/*.sources; do
        [ -f "$file" ] || continue
        sed -E 's/^[Tt]ypes:.*/Types: deb-src/' "$file" >"$apt/sources/${file##*/}"
    done
}

# These two are called where `set -e` does not hold, hence the chains.
fetch_wolfssl() {
    own_apt update || echo 'some sources could not be read'
    cd "$work" && own_apt source wolfssl
}

# wolfSSL keeps its configure line inside the library: no path of this machine may be in it. Its makefiles
# take no line break in a flag.
compile_wolfssl() {
    # shellcheck disable=SC2086
    cd "$work"/wolfssl-*/ &&
        patch -p1 <"$patch" &&
        ./autogen.sh &&
        ./configure CC=gcc CFLAGS="$(echo $wolfssl_cflags)" --prefix=/wolfssl $wolfssl_flags &&
        make -j"$(nproc)" &&
        rm -rf "$dir/include" "$dir/lib" &&
        make install DESTDIR="$DEPS"
}

# True when what is built has these flags and apt knows of no newer version.
wolfssl_current() {
    [ -f "$dir/stamp" ] && [ "$(sed 1d "$dir/stamp")" = "$key" ] || return 1
    [ /var/lib/apt/lists -nt "$dir/stamp" ] && command -v apt-cache >/dev/null || return 0
    offered=$(apt-cache policy libwolfssl-dev 2>/dev/null | sed -n 's/^ *Candidate: //p')
    case $offered in
    '' | '(none)') return 0 ;;
    esac
    ! dpkg --compare-versions "$offered" gt "$(sed -n 1p "$dir/stamp")"
}

# Debian's package is built without AES-NI, about thirty times slower at AES-GCM, so its source
# package, security patches included, is built again for this kind of processor.
build_wolfssl() {
    mkdir -p "$DEPS"
    DEPS=$(cd "$DEPS" && pwd)
    dir=$DEPS/wolfssl apt=$DEPS/apt work=$DEPS/src
    patch=$PWD/tools/wolfssl.patch
    key=$(echo $wolfssl_flags $wolfssl_cflags $(cksum <"$patch"))
    if wolfssl_current; then
        touch "$dir/stamp" # newer than this script, so that make does not ask again
        return 0
    fi
    exec 9>"$DEPS/lock"
    flock 9
    ! wolfssl_current || return 0 # another make built it meanwhile
    command -v apt-get >/dev/null ||
        die 'wolfSSL is built from a Debian source package; without apt-get use WOLFSSL=system'
    # shellcheck disable=SC2086
    lacking=$(missing gcc make $source_packages)
    [ -z "$lacking" ] || die "run 'make deps': wolfSSL's build needs $lacking"
    echo "  DEP wolfssl (about a minute)"
    rm -rf "$work" "$apt" "$dir/stamp"
    mkdir -p "$work" "$dir"
    write_sources
    (logged wolfssl-fetch fetch_wolfssl) || # in a subshell: it changes folder
        die 'cannot fetch the source package wolfssl; WOLFSSL=system or WOLFSSL=none do without'
    (logged wolfssl-build compile_wolfssl) || die 'wolfSSL does not build'
    version=$(sed -n 's/^Version: //p' "$work"/wolfssl_*.dsc | head -n 1)
    printf '%s\n%s\n' "$version" "$key" >"$dir/stamp"
    rm -rf "$work" "$apt"
}

# The browser test drives Debian's chromium through this library; no browser is downloaded.
install_playwright() {
    package=build/npm/node_modules/playwright-core/package.json
    ! grep -qs "\"version\": \"$playwright\"" "$package" || return 0
    command -v npm >/dev/null || install_packages nodejs npm
    echo "  NPM playwright-core"
    mkdir -p build/npm
    logged npm npm install --prefix build/npm --no-audit --no-fund --no-save \
        "playwright-core@$playwright" ||
        echo 'deps: playwright-core is not to be had: the browser test cannot run' >&2
}

case $WOLFSSL in
source) build_packages="$build_packages $source_packages" ;;
system) build_packages="$build_packages libwolfssl-dev" ;;
none) ;;
*) die 'WOLFSSL is one of source, system, none' ;;
esac

case ${1-} in
build) install_packages $build_packages ;;
test)
    install_packages $build_packages $test_packages
    install_playwright
    ;;
bench) install_packages $build_packages $bench_packages ;;
wolfssl) ;;
*) die 'usage: tools/deps.sh build|test|bench|wolfssl' ;;
esac
[ "$WOLFSSL" != source ] || build_wolfssl
