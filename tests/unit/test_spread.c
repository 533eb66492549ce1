/*
 * Goal: a connection goes on to a shard that has clearly fewer, and to no other; nobody loses one on the way.
 * Method: three shards that are numbers on a board; messages are carried by hand.
 */
#include "tools/spread.h"

#include <criterion/criterion.h>

#define SHARDS 3u

static struct ag_spread spreads[SHARDS];
static struct ag_board_shard each[SHARDS];
static struct ag_board board;
/* Posted, in order. */
static struct ag_msg *posted[2 * AG_SPREAD_PASSES];
static uint32_t posted_to[2 * AG_SPREAD_PASSES], posted_count;
static bool ended[SHARDS], takes;
static int taken_fd, home_fd;
static uint32_t taken_by, taken_socket, homes;
static void *home_origin;
static int origin;

static bool post(void *owner, uint32_t shard, struct ag_msg *m)
{
    (void)owner;
    if (ended[shard]) {
        return false;
    }
    posted[posted_count] = m;
    posted_to[posted_count++] = shard;
    return true;
}

static bool take(struct ag_spread *s, uint32_t socket_id, int fd)
{
    taken_by = s->index;
    taken_socket = socket_id;
    taken_fd = fd;
    return takes;
}

static void home(struct ag_spread *s, void *from, int fd)
{
    cr_assert_eq(s->index, 0);
    home_origin = from;
    home_fd = fd;
    homes++;
}

static void set_up(void)
{
    board = (struct ag_board){.shard_count = SHARDS, .each = each};
    takes = true;
    for (uint32_t i = 0; i < SHARDS; i++) {
        spreads[i] = (struct ag_spread){
            .index = i, .board = &board, .post = post, .take = take, .home = home};
        ag_spread_open(&spreads[i]);
        each[i].spread = &spreads[i];
        each[i].serves = true;
        each[i].connections = 100;
    }
}

static void carry(uint32_t i)
{
    posted[i]->run(NULL, posted[i]);
}

TestSuite(spread, .init = set_up);

Test(spread, goes_to_the_one_with_least)
{
    each[1].connections = 20;
    each[2].connections = 10;
    cr_assert(ag_spread_pass(&spreads[0], 100, 7, &origin, 5));
    cr_assert_eq(posted_to[0], 2);
    cr_assert_eq(spreads[0].out, 1);
    carry(0);
    cr_assert_eq(taken_by, 2);
    cr_assert_eq(taken_socket, 7);
    cr_assert_eq(taken_fd, 5);
    cr_assert_eq(posted_to[1], 0);
    carry(1);
    cr_assert_eq(homes, 1);
    cr_assert_eq(home_fd, -1);
    cr_assert_eq(home_origin, &origin);
    cr_assert_eq(spreads[0].out, 0);
}

Test(spread, comes_back_when_it_cannot_be_taken)
{
    each[2].connections = 10;
    takes = false;
    cr_assert(ag_spread_pass(&spreads[0], 100, 7, &origin, 5));
    carry(0);
    carry(1);
    cr_assert_eq(home_fd, 5);
    cr_assert_eq(spreads[0].out, 0);
}

Test(spread, stays_where_the_difference_is_small)
{
    const struct {
        uint32_t least, own;
        bool goes;
    } cases[] = {{0, 2, false},  {0, 3, true},      {16, 19, false},
                 {16, 20, true}, {320, 342, false}, {320, 343, true}};

    each[1].connections = 10000;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        each[2].connections = cases[i].least;
        cr_assert_eq(ag_spread_pass(&spreads[0], cases[i].own, 7, &origin, 5), cases[i].goes,
                     "%u of %u", cases[i].own, cases[i].least);
        if (cases[i].goes) {
            carry(posted_count - 1);
            carry(posted_count - 1);
        }
    }
}

Test(spread, those_on_their_way_count)
{
    unsigned gone = 0;

    each[1].connections = each[2].connections = 0;
    while (gone < 50 && ag_spread_pass(&spreads[0], 10, 7, &origin, 5)) {
        gone++;
    }
    /* Up to seven each: 10 is no more than 8 and 2. */
    cr_assert_eq(gone, 16);
}

Test(spread, not_to_one_that_does_not_serve)
{
    each[1].connections = each[2].connections = 0;
    each[1].serves = false;
    cr_assert(ag_spread_pass(&spreads[0], 100, 7, &origin, 5));
    cr_assert_eq(posted_to[0], 2);
    each[2].serves = false;
    cr_assert_not(ag_spread_pass(&spreads[0], 100, 7, &origin, 6));
}

Test(spread, not_to_one_that_has_ended)
{
    each[2].connections = 0;
    ended[2] = true;
    cr_assert_not(ag_spread_pass(&spreads[0], 100, 7, &origin, 5));
    cr_assert_eq(spreads[0].out, 0);
    ended[2] = false;
    cr_assert(ag_spread_pass(&spreads[0], 100, 7, &origin, 5));
}

Test(spread, no_more_than_there_is_room_for_on_the_way)
{
    each[1].connections = each[2].connections = 0;
    for (uint32_t i = 0; i < AG_SPREAD_PASSES; i++) {
        cr_assert(ag_spread_pass(&spreads[0], 10000, 7, &origin, 5));
    }
    cr_assert_not(ag_spread_pass(&spreads[0], 10000, 7, &origin, 5));
    carry(0);
    carry(AG_SPREAD_PASSES);
    cr_assert(ag_spread_pass(&spreads[0], 10000, 7, &origin, 5));
}

Test(spread, alone)
{
    each[1].connections = each[2].connections = 0;
    spreads[0].post = NULL;
    cr_assert_not(ag_spread_pass(&spreads[0], 100, 7, &origin, 5));
    spreads[0].post = post;
    spreads[0].board = NULL;
    cr_assert_not(ag_spread_pass(&spreads[0], 100, 7, &origin, 5));
}
