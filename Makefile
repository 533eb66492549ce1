# make [MODE=release|debug|asan|tsan|fuzz|coverage|train|pgo] [CC=gcc|clang] [V=1]
#      [WOLFSSL=source|system|none]
# All output is under build/, per compiler and mode; `make help` lists the goals.
# A goal that names its folder (build/gcc-asan/tests/unit/test_x) sets CC and MODE itself.
NAMED := $(subst -, ,$(word 2,$(subst /, ,$(firstword $(filter build/gcc-% build/clang-%, \
  $(MAKECMDGOALS))))))
CC    := $(if $(filter default,$(origin CC)),$(or $(word 1,$(NAMED)),gcc),$(CC))
MODE  ?= $(or $(word 2,$(NAMED)),$(if $(filter unit,$(MAKECMDGOALS)),debug,release))
OUT   := build/$(CC)-$(MODE)
Q     := $(if $(V),,@)
JOBS  ?= $(shell nproc)
PREFIX ?= /usr/local
FUZZ_S ?= 10
SOAK_S ?= 600
WOLFSSL ?= source
DEPS    ?= build/deps
export WOLFSSL DEPS
$(if $(filter release debug asan tsan fuzz coverage train pgo,$(MODE)),,$(error MODE=$(MODE) is not known))

STD  := -std=gnu17 -D_GNU_SOURCE -I. -pthread -g -fno-common -fno-omit-frame-pointer \
  -ffile-prefix-map=$(CURDIR)=.
WARN := -Wall -Wextra -Werror -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes \
  -Wold-style-definition -Wpointer-arith -Wcast-qual -Wwrite-strings -Wundef -Wvla -Wformat=2 \
  -Wswitch-enum -Wimplicit-fallthrough -Wnull-dereference
GCC_WARN   := -Wduplicated-cond -Wduplicated-branches -Wlogical-op -Wcast-align=strict -Walloca \
  -Wjump-misses-init
CLANG_WARN := -Wcomma -Wunreachable-code
WARN += $(if $(findstring clang,$(CC)),$(CLANG_WARN),$(GCC_WARN))
# Sanitizers put red zones into frames, so only the plain modes bound them.
WARN += $(if $(filter release debug,$(MODE)),-Wframe-larger-than=4096)

# What only some processors have; the rest of the code is for the baseline (no -march).
HARDEN_x86_64  := -fcf-protection
HARDEN_aarch64 := -mbranch-protection=standard
# Structs that are cleared have some hundred bytes: gcc would use "rep stos", which takes longer to begin than
# stores of 16 bytes take for all of it.
STORES_x86_64  := -mmemset-strategy=vector_loop:1024:noalign,libcall:-1:noalign
MACHINE = $(word 1,$(subst -, ,$(shell $(CC) -dumpmachine)))
# All but release carry the fault hook (engine/fault.h).
FAULTS  := -DAG_FAULTS=1
debug   := -O1 $(FAULTS)
release := -O2 -fPIE -fstack-protector-strong -fstack-clash-protection -D_FORTIFY_SOURCE=2 \
  $(HARDEN_$(MACHINE)) $(if $(findstring clang,$(CC)),-flto=thin,-flto=auto $(STORES_$(MACHINE)))
# Of a sanitizer's stack lines are told, not variables: without those a build takes a third less.
asan    := -O1 -g1 $(FAULTS) -fsanitize=address,undefined -fno-sanitize-recover=all
tsan    := -O1 -g1 $(FAULTS) -fsanitize=thread
fuzz    := $(asan) -fsanitize=fuzzer-no-link
coverage := -O1 -fprofile-instr-generate -fcoverage-mapping
# `make pgo`: release, with counters (train), and laid out by what they have counted (pgo); gcc alone. Each
# object has a profile of its own, and functions that the training has not seen are compiled as in release.
# By default gcc would count the loops alone as hot, and make what each request does once small.
train   := $(release) -fprofile-generate -fprofile-update=atomic
pgo     := $(release) -fprofile-use -fprofile-partial-training -Wno-missing-profile --param=hot-bb-count-ws-permille=999
TRAINED := $(if $(filter pgo,$(MODE)),build/$(CC)-train/trained)
PROFILE  = $(if $(TRAINED),-fprofile-use=$(@:$(OUT)/%.o=build/$(CC)-train/%.gcda))
# Tests start it thousands of times: where it lies fixed there is less to relocate.
asan_link    := -no-pie
release_link := -pie -Wl,-z,relro,-z,now,-z,noexecstack
train_link   := $(release_link)
pgo_link     := $(release_link)
fuzz_link    := -fsanitize=fuzzer

# wolfSSL: built from the distribution's source (tools/deps.sh says why), the distribution's, none.
WOLFSSL_STAMP := $(if $(filter source,$(WOLFSSL)),$(DEPS)/wolfssl/stamp)
STD  += -DAG_WOLFSSL=$(if $(filter none,$(WOLFSSL)),0,1)
STD  += $(if $(WOLFSSL_STAMP),-isystem $(DEPS)/wolfssl/include)
LIBS := -Wl,--as-needed $(if $(WOLFSSL_STAMP),$(DEPS)/wolfssl/lib/libwolfssl.a) \
  $(if $(filter system,$(WOLFSSL)),-lwolfssl) \
  -luring -lxxhash -lyaml -lcares -lz -lbrotlienc -lbrotlidec -lzstd -lcrypt -lseccomp -lm
CFLAGS   := $(STD) $(WARN) $($(MODE))
# Criterion's macros convert and cast freely, and tests may have large frames.
RELAX    := -Wno-conversion -Wno-cast-qual -Wno-frame-larger-than
LINK      = $(Q)echo "  LD $@"; $(CC) $(STD) $($(MODE)) $($(MODE)_link) -o $@

DIRS   := engine proto router actions filters
# All but main() is in the library, so that unit tests reach tools/ too.
SRC    := $(wildcard $(DIRS:%=%/*.c) actions/*/*.c) $(filter-out tools/anygate.c,$(wildcard tools/*.c))
OBJ    := $(SRC:%.c=$(OUT)/%.o)
LIB    := $(OUT)/libanygate.a
MAIN   := $(OUT)/tools/anygate.o
UNIT   := $(patsubst %.c,$(OUT)/%,$(wildcard tests/unit/test_*.c))
FUZZ   := $(patsubst %.c,$(OUT)/%,$(wildcard fuzz/fuzz_*.c))
SIM    := $(OUT)/tests/sim/sim
MICRO  := $(OUT)/bench/micro/micro
# What targets share.
FUZZ_PARTS := $(filter-out fuzz/fuzz_% fuzz/replay.c,$(wildcard fuzz/*.c))
LINTED := $(patsubst ./%,build/lint/%.ok,$(shell find . -path ./build -prune -o -path ./.git \
  -prune -o -name '*.[ch]' -print))

all: $(if $(filter release,$(MODE)),build/anygate,$(OUT)/anygate)    ## build the server: build/anygate
build/anygate: $(OUT)/anygate
	$(Q)ln -f $< $@
$(OUT)/anygate: $(MAIN) $(OBJ)
	$(LINK) $^ $(LIBS)
$(LIB): $(OBJ) $(OUT)/sources
	$(Q)rm -f $@; ar rcsT $@ $(OBJ)
# Criterion's runner cannot run under ThreadSanitizer: tests/tsan_main.c takes its place.
$(UNIT): %: %.o $(if $(filter tsan,$(MODE)),$(OUT)/tests/tsan_main.o) $(LIB)
	$(LINK) $^ $(LIBS) -lcriterion
# Without clang the same targets replay files given as arguments.
$(FUZZ): %: %.o $(FUZZ_PARTS:%.c=$(OUT)/%.o) $(if $(filter fuzz,$(MODE)),,$(OUT)/fuzz/replay.o) $(LIB)
	$(LINK) $^ $(LIBS)
$(SIM): $(patsubst %.c,$(OUT)/%.o,$(wildcard tests/sim/*.c)) $(LIB)
	$(LINK) $^ $(LIBS) -lssl -lcrypto
$(MICRO): $(patsubst %.c,$(OUT)/%.o,$(wildcard bench/micro/*.c)) $(LIB)
	$(LINK) $^ $(LIBS)

# What `anygate version` tells.
empty :=
comma := ,
VERSION = -DAG_BUILD='"$(MODE)"' -DAG_LIBRARIES='"$(subst $(empty) $(empty),$(comma),$(foreach p, \
  liburing libcares yaml-0.1 libxxhash,$(p)/$(shell pkg-config --modversion $(p))))"'
$(OUT)/tools/cmd_version.o: CFLAGS += $(VERSION)
build/lint/tools/cmd_version.c.ok: STD += $(VERSION)
build/lint/engine/fault.%.ok build/lint/engine/uring.c.ok: STD += $(FAULTS)
$(OUT)/%.o: %.c $(OUT)/flags $(TRAINED)
	$(Q)echo "  CC $<"; mkdir -p $(@D); $(CC) $(CFLAGS) $(PROFILE) -MMD -MP -c -o $@ $<
$(OUT)/tests/%.o: CFLAGS += $(RELAX)
# Of ours only engine/tls* sees wolfSSL, and so do its tests; who links needs the library.
$(filter $(OUT)/engine/tls%,$(OBJ)) $(filter $(OUT)/tests/unit/test_tls%,$(UNIT:=.o)): \
  $(WOLFSSL_STAMP)
$(OUT)/anygate $(UNIT) $(FUZZ) $(SIM) $(MICRO): | $(WOLFSSL_STAMP)
$(WOLFSSL_STAMP): tools/deps.sh tools/wolfssl.patch
	$(Q)tools/deps.sh wolfssl
# Files whose content is a command line or a list: when it changes, all that depends is rebuilt.
$(OUT)/flags: TEXT = $(CC) $(STD) $(WARN) $($(MODE)) $(RELAX)
$(OUT)/sources: TEXT = $(OBJ)
$(OUT)/flags $(OUT)/sources: FORCE
	@mkdir -p $(@D); echo '$(TEXT)' | cmp -s - $@ || echo '$(TEXT)' >$@

deps:                            ## install what a build needs (root), or say the command that does
	$(Q)tools/deps.sh build
run: deps                        ## build and serve docs/examples/anygate.yml
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) MODE=release all
	$(Q)build/anygate check -c docs/examples/anygate.yml
	@echo "  Look at http://localhost:8080/ (Ctrl-C stops it)"
	build/anygate serve -c docs/examples/anygate.yml
test:                            ## run every test there is; ends with "N passed, N failed"
	$(Q)tools/deps.sh test
	$(Q)MAKE='$(MAKE)' JOBS='$(JOBS)' tools/test.sh
pgo:                             ## build build/gcc-pgo/anygate: release, laid out by a training run
	$(Q)tools/deps.sh bench
	$(Q)MAKE='$(MAKE)' JOBS='$(JOBS)' tools/pgo.sh
build/%-train/trained:
	$(Q)echo "MODE=pgo needs a training run: make pgo" >&2; false
unit: $(UNIT)                    ## run tests/unit in this MODE
	$(Q)set -e; for t in $^; do echo "  TEST $$t"; $(RUN) $$t; done
# The kernel's wide address randomisation leaves ThreadSanitizer no room for its shadow.
unit: RUN = $(if $(filter tsan,$(MODE)),$(shell setarch -R true 2>/dev/null && echo setarch -R))
replay: $(FUZZ)                  # builds what tools/test.sh runs
unit-build: $(UNIT)
# SEED=n [VERBOSE=1]: one run, told. Else SEEDS=n runs from FROM on.
sim: $(SIM)                      ## run whole simulated servers: SEEDS=n [FROM=n], or SEED=n [VERBOSE=1]
	$(Q)$(SIM) $(if $(SEED),--seed $(SEED) $(if $(VERBOSE),--verbose),--from $(or $(FROM),1) \
	  --count $(or $(SEEDS),1000) --jobs $(JOBS))
sim-build: $(SIM)
micro: $(MICRO)                  ## nanoseconds of parsers, router, HPACK, timers, balancers (ONLY=part of a name)
	$(Q)$(MICRO) $(if $(ONLY),"$(ONLY)")
micro-build: $(MICRO)
fuzz:                            ## run every fuzz/fuzz_*.c for FUZZ_S seconds (clang)
	$(Q)$(MAKE) --no-print-directory CC=clang MODE=fuzz fuzz-run
fuzz-run: $(FUZZ)
	$(Q)set -e; for f in $^; do t=$${f##*/fuzz_}; mkdir -p build/corpus/fuzz_$$t; \
	  $$f -max_total_time=$(FUZZ_S) -dict=fuzz/dict/$$t.dict build/corpus/fuzz_$$t fuzz/corpus/$$t; done
fuzz-coverage:                   ## line coverage of each fuzz target's files by its corpus (clang)
	$(Q)$(MAKE) --no-print-directory CC=clang MODE=coverage replay
	$(Q)fuzz/coverage.sh build/clang-coverage/fuzz
fault:                           ## fail every system call of the engine in turn (a quarter of an hour)
	$(Q)tools/deps.sh test
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) CC=gcc MODE=asan all
	$(Q)FAULT_FULL=1 ANYGATE=$(CURDIR)/build/gcc-asan/anygate /usr/bin/python3 -m pytest -q \
	  -p no:cacheprovider tests/fault
sim-coverage:                    ## lines of the server that SEEDS simulated runs reach (clang)
	$(Q)$(MAKE) --no-print-directory CC=clang MODE=coverage sim-build
	$(Q)tests/sim/coverage.sh build/clang-coverage/tests/sim/sim $(SEEDS)
mutate:                          ## remove each check in turn: a test must fail (LIST=, ONLY=name)
	$(Q)tools/deps.sh test
	$(Q)nice /usr/bin/python3 tests/mutate/run.py --jobs $(JOBS) $(LIST:%=--list %) $(ONLY:%=--only %)
bench: all                       ## measure beside nginx, HAProxy, h2o and floors, 15 minutes (CASE=name: that)
	$(Q)tools/deps.sh bench
	$(Q)/usr/bin/python3 bench/run.py $(CASE:%=--case %)
soak: all                        ## a mix of everything for SOAK_S seconds (600): memory must stay flat
	$(Q)/usr/bin/python3 bench/soak/soak.py --seconds $(SOAK_S)
lint:                            ## format, clang-tidy, cppcheck, -fanalyzer, headers, layers
	$(Q)tools/deps.sh test
	$(Q)$(MAKE) --no-print-directory -k -O -j$(JOBS) CC=gcc MODE=debug lint-all
lint-all: lint-tree $(LINTED)
	@:
lint-tree:
	$(Q)tools/layers.sh && tools/lint.sh tree $(STD)
build/lint/%.ok: % tools/lint.sh .clang-tidy $(OUT)/flags
	$(Q)echo "  LINT $<"; mkdir -p $(@D); CLANG_WARN='$(CLANG_WARN)' \
	  tools/lint.sh file $< $@ $(STD) $(WARN)
install: all                     ## copy the server to DESTDIR and PREFIX (/usr/local)
	install -D -m 755 $(if $(filter release,$(MODE)),build,$(OUT))/anygate $(DESTDIR)$(PREFIX)/bin/anygate
	install -D -m 644 LICENSE $(DESTDIR)$(PREFIX)/share/doc/anygate/LICENSE
clean:                           ## remove what was built, but for build/deps and build/npm
	$(Q)rm -rf $(filter-out build/deps build/npm,$(wildcard build/*))
help:                            ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## /  \1\t/p' $(MAKEFILE_LIST)
.PHONY: all deps run pgo test fault bench soak unit unit-build sim sim-build sim-coverage micro micro-build replay \
  fuzz fuzz-run fuzz-coverage mutate lint lint-all lint-tree install clean help FORCE
.SECONDARY:
-include $(wildcard $(OUT)/*/*.d $(OUT)/*/*/*.d build/lint/*/*.d build/lint/*/*/*.d)
