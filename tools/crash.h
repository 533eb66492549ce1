/*
 * crash: a line about the signal that ends the process, for whoever finds its supervisor's log.
 *
 *   anygate: crash: SIGSEGV at 0x10 in thread shard-0, pc anygate+0x2f31a, version 0.1.0, pid 4711
 *
 * `addr2line -e anygate 0x2f31a` tells the source line (without "anygate+" it is a library's). The signal then takes its default course, so
 * cores are written as they would be without. Sanitizers have reports of their own: in their builds
 * nothing is installed.
 */
#pragma once

/* Once, before other threads start; the calling thread is covered as by ag_crash_thread. */
void ag_crash_install(void);
/* Gives the calling thread a stack to report on, for when its own is what overflowed. */
void ag_crash_thread(void);
