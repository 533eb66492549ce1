/*
 * relay_config: the section `tcp`: where connections go that are passed on as they are. Its listeners are the
 * router's (model_tcp.c).
 *
 *   tcp:
 *     - listen: [":5432"]
 *       to: db                       # a name of proxy.upstreams, or host:port{,host:port}
 *       timeouts: {connect: 3s, idle: 1h, hello: 10s}
 *     - listen: [":443"]
 *       sni: {a.example.com: app-a, "*.b.example.com": app-b}
 *       default: app-c               # absent: other names are refused
 */
#pragma once
#include "actions/proxy/proxy_config.h"
#include "actions/proxy/relay.h"

/* Reads `list` (or NULL) into section->relays. False after a diagnosis. */
bool ag_relay_configure(struct ag_action_build *build, struct ag_proxy_section *section,
                        const struct ag_node *list);
/* For `check`: one line an entry. */
void ag_relay_describe(const struct ag_proxy_section *section, struct ag_buf *out);
/* The entry of that index, of what the proxy's section is; NULL: there is none. */
const struct ag_relay_settings *ag_relay_settings_of(const void *section, uint32_t index);
