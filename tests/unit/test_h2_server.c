#include "tests/unit/h2_rig.h"

H2_TEST(h2_server, answers_at_once)
{
    ask(r, 1, "/fixed", END);
    expect_told(r, "HEADERS 1 :status=200,content-length=2\nDATA 1 \"ok\" END\n");
    ask(r, 3, "/fixed", END);
    expect_told(r, "HEADERS 3 :status=200,content-length=2\nDATA 3 \"ok\" END\n");
    cr_expect_eq(r->dones, 2);
    cr_expect_eq(r->ctx.exchanges_live, 0);
}

H2_TEST(h2_server, echoes_content)
{
    ask(r, 1, "/echo", OPEN);
    data(r, 1, "hello ", 0);
    data(r, 1, "world", END);
    expect_told(r, "HEADERS 1 :status=200,content-length=11\nDATA 1 \"hello world\" END\n");
}
