# make [MODE=debug|release|asan|tsan] [CC=gcc|clang] [V=1] -- all output under build/
MODE ?= debug
CC   := $(if $(filter default,$(origin CC)),gcc,$(CC))
OUT  := build/$(CC)-$(MODE)
Q    := $(if $(V),,@)
STD  := -std=gnu17 -D_GNU_SOURCE -I. -pthread -g -fno-common -fno-omit-frame-pointer
WARN := -Wall -Wextra -Werror -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes \
  -Wold-style-definition -Wpointer-arith -Wcast-qual -Wwrite-strings -Wundef -Wvla -Wformat=2 \
  -Wswitch-enum -Wimplicit-fallthrough -Wnull-dereference -Wframe-larger-than=4096
WARN += $(if $(findstring gcc,$(CC)),-Wduplicated-cond -Wduplicated-branches -Wlogical-op \
  -Wcast-align=strict -Walloca -Wjump-misses-init,-Wcomma -Wunreachable-code)
debug   := -O1
release := -O2 -fstack-protector-strong -fstack-clash-protection -D_FORTIFY_SOURCE=2
asan    := -O1 -fsanitize=address,undefined -fno-sanitize-recover=all
tsan    := -O1 -fsanitize=thread
CFLAGS  := $(STD) $(WARN) $($(MODE))
LIBS    := -luring -lxxhash -lyaml -lcares

DIRS  := engine proto router actions filters
SRC   := $(wildcard $(DIRS:%=%/*.c))
LIB   := $(SRC:%.c=$(OUT)/%.o)
UNIT  := $(patsubst %.c,$(OUT)/%,$(wildcard tests/unit/test_*.c))
FUZZ  := $(patsubst %.c,build/%,$(wildcard fuzz/fuzz_*.c))

all: $(OUT)/anygate              ## build the server
$(OUT)/anygate: $(patsubst %.c,$(OUT)/%.o,$(wildcard tools/*.c)) $(LIB)
	$(Q)echo "  LD $@"; $(CC) $(CFLAGS) -o $@ $^ $(LIBS)
$(UNIT): %: %.o $(LIB)
	$(Q)echo "  LD $@"; $(CC) $(CFLAGS) -o $@ $^ $(LIBS) -lcriterion
$(OUT)/%.o: %.c $(OUT)/flags
	$(Q)echo "  CC $<"; mkdir -p $(@D); $(CC) $(CFLAGS) -MMD -MP -c -o $@ $<
$(OUT)/flags: FORCE              # its content is the command line: new flags rebuild all
	@mkdir -p $(@D); echo '$(CC) $(CFLAGS)' | cmp -s - $@ || echo '$(CC) $(CFLAGS)' >$@
build/fuzz/%: fuzz/%.c $(SRC)
	@mkdir -p $(@D); clang $(STD) -O1 -fsanitize=fuzzer,address,undefined -o $@ $^ $(LIBS)

unit: $(UNIT)                    ## run every tests/unit/test_*.c
	$(Q)set -e; for t in $^; do echo "  TEST $$t"; $$t; done
fuzz: $(FUZZ)                    ## run every fuzz/fuzz_*.c for FUZZ_S seconds
	$(Q)set -e; for f in $^; do $$f -max_total_time=$(or $(FUZZ_S),10); done
help:                            ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## /  \1\t/p' $(MAKEFILE_LIST)
.PHONY: all unit fuzz help FORCE
.SECONDARY:
-include $(wildcard $(OUT)/*/*.d) $(wildcard $(OUT)/*/*/*.d)
