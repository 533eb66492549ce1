/*
 * relay: connections that the server passes on as they are (section tcp), from both ends: callers before it, and the
 * servers that they reach.
 *
 *   caller --[PROXY header] [ClientHello with a name ...] 'R', id, content--> relay --[PROXY header] the same--> server
 *   caller <-------------------------------- content, its end <-------------------------------------- server
 *
 * Each way has its length and ends by itself (half-close), in any order. Some calls are TLS from end to end, which the
 * relay must not touch. What ends without a reset must be whole, whatever goes wrong.
 */
#pragma once
#include "tests/sim/run.h"

/* Callers and servers of a run with `more` in its weather. */
void relays_start(struct run *r);
/* A drain begins, or a listener goes: those who are under way may be cut. */
void relays_at_risk(struct run *r, uint32_t ports);
/* All calls are over. */
bool relays_done(const struct run *r);
/* Connections that servers still hold. */
uint32_t relays_open(const struct run *r);
