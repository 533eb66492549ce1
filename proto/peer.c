#include "proto/peer.h"

void ag_peer_set(struct ag_peer *p, const union ag_addr *addr)
{
    p->family = (uint8_t)addr->sa.sa_family;
    if (addr->sa.sa_family == AF_INET) {
        p->port = addr->in.sin_port;
        memcpy(p->bytes, &addr->in.sin_addr, sizeof(addr->in.sin_addr));
    } else if (addr->sa.sa_family == AF_INET6) {
        p->port = addr->in6.sin6_port;
        memcpy(p->bytes, &addr->in6.sin6_addr, sizeof(addr->in6.sin6_addr));
    }
}

void ag_peer_look(struct ag_peer *p, struct ag_stream *s)
{
    union ag_addr addr;

    if (p->family == AF_UNSPEC) {
        ag_stream_peer(s, &addr);
        ag_peer_set(p, &addr);
    }
}

void ag_peer_known(const struct ag_peer *p, union ag_addr *out_addr)
{
    memset(out_addr, 0, sizeof(*out_addr));
    out_addr->sa.sa_family = p->family;
    if (p->family == AF_INET) {
        out_addr->in.sin_port = p->port;
        memcpy(&out_addr->in.sin_addr, p->bytes, sizeof(out_addr->in.sin_addr));
    } else if (p->family == AF_INET6) {
        out_addr->in6.sin6_port = p->port;
        memcpy(&out_addr->in6.sin6_addr, p->bytes, sizeof(out_addr->in6.sin6_addr));
    }
}

void ag_peer_address(struct ag_peer *p, struct ag_stream *s, union ag_addr *out_addr)
{
    ag_peer_look(p, s);
    ag_peer_known(p, out_addr);
}
