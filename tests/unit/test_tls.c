/*
 * Goal: TLS carries bytes whole and in order, tells what was settled, and leaves nothing behind, however its peer
 * behaves.
 * Method: our client and our server on one loop, or one of them and a raw socket; on both backends.
 */
#include "tests/unit/tls_rig.h"

#if AG_WOLFSSL

TestSuite(tls, .init = rig_setup, .fini = rig_teardown);

BOTH(tls, says_what_was_settled)
{
    rig_open(kind, 64, 16);
    rig_shake();
    cr_assert_str_eq(rig.server.session.version, "TLSv1.3");
    cr_assert_str_eq(rig.client.session.version, "TLSv1.3");
    cr_assert_str_eq(rig.server.session.cipher, "TLS_AES_128_GCM_SHA256");
    cr_assert_str_eq(rig.server.name, "localhost");
    cr_assert_eq(rig.server.session.alpn, AG_ALPN_H2);
    cr_assert_eq(rig.client.session.alpn, AG_ALPN_H2);
    cr_assert(!rig.server.session.resumed && !rig.server.session.client_cert_asked);
    rig_finish();
    cr_assert_eq(rig.client.why, AG_REASON_NONE, "%s", ag_reason_text(rig.client.why));
    cr_assert_eq(rig.server.why, AG_REASON_NONE);
    rig_close();
}

BOTH(tls, bytes_go_both_ways)
{
    rig_open(kind, 64, 16);
    rig_shake();
    end_send(&rig.client, 0, 100);
    end_send(&rig.server, 0, 50000);
    turn_until(rig.l, rig.server.in == 100 && rig.client.in == 50000);
    rig_finish();
    rig_close();
}

#endif
