#include "router/explain.h"
#include "tools/args.h"
#include "tools/commands.h"
#include "tools/load.h"

#include <stdio.h>
#include <unistd.h>

#define REPORT_BYTES (16u << 20)

/* "example.com:8443" asks for a listener's port besides; [::1] keeps its colons. */
static struct ag_span split_port(struct ag_span host, uint16_t *out_port)
{
    size_t colon = host.len;
    uint64_t port;

    for (size_t i = host.len; i > 0 && host.ptr[i - 1] != ']'; i--) {
        if (host.ptr[i - 1] == ':') {
            colon = i - 1;
            break;
        }
    }
    if (colon < host.len && ag_span_u64(ag_span_sub(host, colon + 1, host.len), &port) == AG_OK &&
        port <= UINT16_MAX) {
        *out_port = (uint16_t)port;
        return ag_span_sub(host, 0, colon);
    }
    return host;
}

int ag_cmd_routes(int argc, char **argv)
{
    struct ag_config_input in = {.env = (const char *const *)environ};
    const char *operands[3], *routes[AG_ARGS_REPEAT_MAX];
    size_t operand_count = 0;
    struct ag_load load;
    uint8_t *room;
    struct ag_buf b;
    bool found = true;
    const struct ag_option options[] = {
        {"--config", 'c', "FILE", "configuration: .yml .yaml .json or .gate",
         .out_value = &in.file},
        {"--route", 'r', "ROUTE", "one route; may be repeated", .out_values = routes,
         .out_count = &in.route_count},
    };
    const struct ag_command command = {
        .usage = "anygate routes -c FILE [METHOD PATH [Host]]",
        .about = "Prints the route tree; with a request, which route wins and why others lost.",
        .example = "anygate routes -c anygate.yml GET /api/users/7 api.example.com",
        .options = options,
        .option_count = AG_COUNT(options),
        .operand_max = 3,
    };
    enum ag_args_result parsed = ag_args_parse(&command, argc, argv, operands, &operand_count);

    if (parsed != AG_ARGS_OK) {
        return parsed == AG_ARGS_HELP ? AG_EXIT_OK : AG_EXIT_USAGE;
    }
    if ((!in.file && in.route_count == 0) || operand_count == 1) {
        (void)fprintf(stderr, "anygate: error: %s\nusage: %s\n",
                      operand_count == 1 ? "a request needs METHOD and PATH" : "no configuration",
                      command.usage);
        return AG_EXIT_USAGE;
    }
    in.routes = routes;
    ag_load_config(&load, &in);
    ag_load_print(&load, AG_DIAG_HUMAN);
    if (!load.snapshot) {
        ag_load_release(&load);
        return AG_EXIT_ERROR;
    }
    room = malloc(REPORT_BYTES);
    AG_ASSERT(room);
    b = ag_buf(room, REPORT_BYTES);
    if (operand_count == 0) {
        ag_explain_tree(load.snapshot, &b, ag_colour_wanted(STDOUT_FILENO));
    } else {
        uint16_t port = 0;
        struct ag_span host = operand_count == 3 ? ag_span_str(operands[2]) : AG_SPAN("");

        host = split_port(host, &port);
        found =
            ag_explain_request(load.snapshot, ag_span_str(operands[0]), ag_span_str(operands[1]),
                               host, port, &b, ag_colour_wanted(STDOUT_FILENO));
    }
    (void)fwrite(b.ptr, 1, b.len, stdout);
    free(room);
    ag_load_release(&load);
    return found ? AG_EXIT_OK : AG_EXIT_ERROR;
}
